//! GPU kernels that measure what the device can give at most.

use bessemer_wgsl::Languages;

use super::Source;

pub(crate) fn sources() -> Vec<Source> {
    let matrix = |name: &str, size: u32, languages: Languages| {
        let prelude = format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\nconst SIZE: u32 = {size}u;\n\
             alias LEFT = coop_mat{size}x{size}<f16, A>;\nalias RIGHT = coop_mat{size}x{size}<f16, B>;\n\
             alias SUM = coop_mat{size}x{size}<f32, C>;\n"
        );
        Source { languages, subgroup_size: Some(32), ..Source::new(name, prelude, &["ceiling/matrix.wgsl"]) }
    };
    vec![
        Source::new("ceiling_read", "", &["ceiling/read.wgsl"]),
        Source::new("ceiling_multiply_add", "", &["ceiling/multiply_add.wgsl"]),
        matrix("ceiling_matrix_16", 16, Languages::Spirv),
        matrix("ceiling_matrix_8", 8, Languages::Msl),
    ]
}
