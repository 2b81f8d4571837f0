//! The rows of a packed matrix.

use bessemer_hal::{Binding, Dispatch, Result};
use bytemuck::{Pod, Zeroable};

use crate::Catalog;
use crate::linear::layout::{LinearLayout, planes};
use crate::linear::{Embedding, Encoding, LANES, ScaleType};
use crate::shaders::{by_rows, launch};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PlainParams {
    rows: u32,
    matrix_rows: u32,
    outputs: u32,
    panels: u32,
    inp: u32,
    encoding: u32,
    scale: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CodeParams {
    rows: u32,
    matrix_rows: u32,
    outputs: u32,
    panels: u32,
    cells: u32,
    panel_words: u32,
    group_cells: u32,
    group_words: u32,
    code_words: u32,
    chunks: u32,
    low: u32,
    high: u32,
    scale_type: u32,
    scale: f32,
}

/// The launch of a lookup whose shapes were checked.
pub(in crate::linear) fn embedding(op: &Embedding, catalog: &Catalog) -> Result<Dispatch> {
    let layout = &op.weights.layout;
    let bindings = vec![
        Binding::read(op.weights.packed.clone()),
        Binding::read(op.ids.clone()),
        Binding::write_any(op.out.clone()),
    ];
    let groups = by_rows(layout.inp().div_ceil(256), op.rows);
    if layout.is_quantised() {
        launch(catalog, "embedding_codes", bindings, &codes(op, layout), groups)
    } else {
        launch(catalog, "embedding_plain", bindings, &plain(op, layout), groups)
    }
}

fn matrix_rows(layout: &LinearLayout) -> u32 {
    (layout.experts() * layout.out()).try_into().unwrap_or(u32::MAX)
}

fn plain(op: &Embedding, layout: &LinearLayout) -> PlainParams {
    PlainParams {
        rows: op.rows as u32,
        matrix_rows: matrix_rows(layout),
        outputs: layout.out() as u32,
        panels: layout.panels() as u32,
        inp: layout.inp() as u32,
        encoding: match layout.encoding() {
            Encoding::F32 => 0,
            Encoding::F16 => 1,
            _ => 2,
        },
        scale: op.scale,
    }
}

fn codes(op: &Embedding, layout: &LinearLayout) -> CodeParams {
    let width = |plane: usize| planes(layout.bits()).get(plane).map_or(0, |&(width, _)| width as u32);
    CodeParams {
        rows: op.rows as u32,
        matrix_rows: matrix_rows(layout),
        outputs: layout.out() as u32,
        panels: layout.panels() as u32,
        cells: layout.inp() as u32 / 4,
        panel_words: layout.panel_bytes() as u32 / 4,
        group_cells: layout.group() as u32 / 4,
        group_words: layout.group_bytes() as u32 / 4,
        code_words: (layout.group() * LANES * layout.bits() / 32) as u32,
        chunks: layout.block() as u32 / 4,
        low: width(0),
        high: width(1),
        scale_type: match layout.scale_type() {
            ScaleType::F32 => 0,
            ScaleType::F16 => 1,
            ScaleType::Bf16 => 2,
            ScaleType::E8m0 => 3,
        },
        scale: op.scale,
    }
}
