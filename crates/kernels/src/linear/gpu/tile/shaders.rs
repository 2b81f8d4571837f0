//! GPU kernels of this operation, in every variant.

use std::fmt::Write as _;

use bessemer_wgsl::Languages;

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let mut sources = vec![];
    for (name, weights, bf16) in [
        ("f32", "linear/gpu/tile/plain_weights_f32.wgsl", false),
        ("f16", "linear/gpu/tile/plain_weights_half.wgsl", false),
        ("bf16", "linear/gpu/tile/plain_weights_half.wgsl", true),
    ] {
        let prelude = format!("const BF16: bool = {bf16};\n");
        sources.push(plain(name, &prelude, weights, "linear/gpu/tile/plain_rows_any.wgsl"));
    }
    for (name, prelude) in quantised() {
        for (form, rows) in
            [("f32", "linear/gpu/tile/plain_rows_f32.wgsl"), ("int8", "linear/gpu/tile/plain_rows_int8.wgsl")]
        {
            let weights = "linear/gpu/tile/plain_weights_quantised.wgsl";
            sources.push(plain(&format!("{name}_{form}"), &prelude, weights, rows));
        }
    }
    let prepare = ["gpu/grid.wgsl", "linear/gpu/tile/prepare_int8.wgsl", "linear/gpu/tile/prepare.wgsl"];
    sources.push(Source::new("tile_prepare_int8", "", &prepare));
    sources.push(Source::new("tile_join", "", &["gpu/grid.wgsl", "linear/gpu/tile/join.wgsl"]));
    for tile in COOPERATIVE {
        for (name, prelude) in quantised() {
            sources.push(tile.source(&name, &prelude, &["linear/gpu/tile/coop_weights_quantised.wgsl"]));
        }
    }
    sources
}

/// Names and constants of the quantised encodings, by their blocks.
fn quantised() -> Vec<(String, String)> {
    let constants = |chunks: u32, (low, high): (u32, u32), mxfp4: bool| {
        format!(
            "const CHUNKS: u32 = {chunks}u;\nconst LOW: u32 = {low}u;\nconst HIGH: u32 = {high}u;\n\
             const MXFP4: bool = {mxfp4};\n"
        )
    };
    let mut list = vec![("mxfp4_32".to_owned(), constants(8, (4, 0), true))];
    for (bits, planes) in [(2, (2, 0)), (3, (2, 1)), (4, (4, 0)), (5, (4, 1)), (6, (4, 2)), (8, (8, 0))] {
        for block in [32, 64] {
            list.push((format!("affine{bits}_{block}"), constants(block / 4, planes, false)));
        }
    }
    list
}

fn plain(name: &str, prelude: &str, weights: &'static str, rows: &'static str) -> Source {
    Source::new(
        format!("tile_plain_{name}"),
        format!("const TM: u32 = 64u;\nconst THREADS: u32 = 256u;\n{prelude}"),
        &[
            "linear/gpu/tile/params.wgsl",
            "linear/gpu/tile/rows.wgsl",
            weights,
            rows,
            "linear/gpu/tile/plain.wgsl",
        ],
    )
}

/// A kernel with cooperative matrices of `size` × `size`: subgroups share a tile of `rows` × `outputs`.
#[derive(Clone, Copy)]
struct Cooperative {
    languages: Languages,
    size: u32,
    rows: u32,
    outputs: u32,
    /// Rows and outputs of a subgroup.
    share: (u32, u32),
}

const COOPERATIVE: [Cooperative; 6] = [
    Cooperative { languages: Languages::Spirv, size: 16, rows: 128, outputs: 128, share: (64, 64) },
    Cooperative { languages: Languages::Spirv, size: 16, rows: 64, outputs: 128, share: (32, 64) },
    Cooperative { languages: Languages::Spirv, size: 16, rows: 32, outputs: 128, share: (32, 32) },
    Cooperative { languages: Languages::Spirv, size: 16, rows: 16, outputs: 128, share: (16, 32) },
    Cooperative { languages: Languages::Msl, size: 8, rows: 64, outputs: 64, share: (32, 32) },
    Cooperative { languages: Languages::Msl, size: 8, rows: 16, outputs: 64, share: (16, 16) },
];

/// Inputs of a step.
const STEP: u32 = 32;

impl Cooperative {
    fn source(&self, weights: &str, prelude: &str, parts: &[&'static str]) -> Source {
        let cells = match self.languages {
            Languages::Msl => "linear/gpu/tile/coop_cells_f16.wgsl",
            _ => "linear/gpu/tile/coop_cells_vec4.wgsl",
        };
        let mut all = vec!["linear/gpu/tile/params.wgsl", "linear/gpu/tile/rows.wgsl", cells];
        all.extend(parts);
        all.push("linear/gpu/tile/coop.wgsl");
        Source {
            languages: self.languages,
            subgroup_size: Some(32),
            ..Source::new(
                format!("tile_coop_{weights}_{}x{}", self.rows, self.outputs),
                format!("{}{prelude}{}", self.prelude(), self.matrices()),
                &all,
            )
        }
    }

    fn prelude(&self) -> String {
        let Self { size, rows, outputs, share: (share_rows, share_outputs), .. } = self;
        let threads = rows / share_rows * (outputs / share_outputs) * 32;
        format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\n\
             const SIZE: u32 = {size}u;\nconst TM: u32 = {rows}u;\nconst TN: u32 = {outputs}u;\n\
             const WM: u32 = {share_rows}u;\nconst WN: u32 = {share_outputs}u;\nconst ACROSS: u32 = TN / WN;\n\
             const THREADS: u32 = {threads}u;\nconst MATRICES: u32 = WM / SIZE * (WN / SIZE);\n\
             alias Left = coop_mat{size}x{size}<f16, A>;\nalias Right = coop_mat{size}x{size}<f16, B>;\n\
             alias Sum = coop_mat{size}x{size}<f32, C>;\n"
        )
    }

    /// What works on the matrices of a subgroup, one line each: in an array that is indexed by constants alone they stay in
    /// registers, whatever a driver makes of loops.
    fn matrices(&self) -> String {
        let (down, across) = (self.share.0 / self.size, self.share.1 / self.size);
        let each = (0..down).flat_map(|i| (0..across).map(move |j| (i, j, i * across + j)));
        let mut clear = String::new();
        let mut multiply = String::new();
        let mut write_sums = String::new();
        for (_, _, at) in each.clone() {
            line(&mut clear, format!("(*acc)[{at}] = Sum();"));
        }
        for k in 0..STEP / self.size {
            let along = k * self.size / 8;
            for j in 0..across {
                let at = format!("w + {}u * PITCH + {along}u * CELLS", j * self.size);
                line(&mut multiply, format!("let w{k}_{j} = coopLoad<Right>(&memory.w[{at}], PITCH);"));
            }
            for i in 0..down {
                let at = format!("x + {}u * PITCH + {along}u * CELLS", i * self.size);
                line(&mut multiply, format!("let x{k}_{i} = coopLoadT<Left>(&memory.x[{at}], PITCH);"));
                for j in 0..across {
                    let at = i * across + j;
                    line(
                        &mut multiply,
                        format!("(*acc)[{at}] = coopMultiplyAdd(x{k}_{i}, w{k}_{j}, (*acc)[{at}]);"),
                    );
                }
            }
        }
        for (i, j, at) in each {
            let (row, column) = (i * self.size, j * self.size);
            line(&mut write_sums, format!("coopStoreT((*acc)[{at}], &memory.sums[place], SUM_PITCH);"));
            line(&mut write_sums, "workgroupBarrier();".into());
            line(&mut write_sums, format!("write_out(wg, t, expert, row + {row}u, column + {column}u);"));
            line(&mut write_sums, "workgroupBarrier();".into());
        }
        format!(
            "alias Sums = ptr<function, array<Sum, MATRICES>>;\n\
             fn clear(acc: Sums) {{\n{clear}}}\n\
             // A step: rows from cell x on, outputs from cell w on.\n\
             fn multiply(acc: Sums, x: u32, w: u32) {{\n{multiply}}}\n\
             fn write_sums(acc: Sums, wg: vec3<u32>, t: u32, subgroup: u32, expert: u32) {{\n\
             let place = subgroup * SIZE * SUM_PITCH;\nlet row = subgroup / ACROSS * WM;\n\
             let column = subgroup % ACROSS * WN;\n{write_sums}}}\n"
        )
    }
}

fn line(text: &mut String, line: String) {
    writeln!(text, "    {line}").expect("a String takes everything");
}
