//! Reading single rows back out of a packed matrix: the embedding lookup.

use super::layout::{Encoding, LANES, LinearError, LinearLayout, MXFP4_CODES, ScaleType, planes};

/// Row `row` (of `experts · out`) of a packed matrix as f32, `scale · code + bias` with one rounding.
///
/// # Errors
/// When `packed` has not the layout's bytes, the row does not exist, or `out` has not `inp` elements.
pub fn unpack_row(
    layout: &LinearLayout,
    packed: &[u8],
    row: usize,
    out: &mut [f32],
) -> Result<(), LinearError> {
    let rows = layout.experts() * layout.out();
    if packed.len() != layout.bytes() || row >= rows || out.len() != layout.inp() {
        return Err(LinearError::new(format!(
            "row {row} of {rows} with {} inputs cannot be read from {} bytes to {} values: {} bytes and {} values are needed",
            layout.inp(),
            packed.len(),
            out.len(),
            layout.bytes(),
            layout.inp()
        )));
    }
    let (expert, row) = (row / layout.out(), row % layout.out());
    let panel = &packed[layout.panel_range(expert, row / LANES)];
    let lane = row % LANES;
    match layout.encoding() {
        Encoding::F32 => {
            let (values, _) = panel.as_chunks::<4>();
            out.iter_mut()
                .zip(values.iter().skip(lane).step_by(LANES))
                .for_each(|(o, v)| *o = f32::from_le_bytes(*v));
        }
        Encoding::F16 | Encoding::Bf16 => {
            let scale_type =
                if layout.encoding() == Encoding::F16 { ScaleType::F16 } else { ScaleType::Bf16 };
            for (o, v) in out.iter_mut().zip(panel.chunks_exact(2).skip(lane).step_by(LANES)) {
                *o = scale(scale_type, v);
            }
        }
        Encoding::Affine { .. } | Encoding::Mxfp4 => {
            let groups = panel.chunks_exact(layout.group_bytes());
            for (out, group) in out.chunks_exact_mut(layout.group()).zip(groups) {
                unpack_group(layout, group, lane, out);
            }
        }
    }
    Ok(())
}

fn unpack_group(layout: &LinearLayout, group: &[u8], lane: usize, out: &mut [f32]) {
    let size = layout.scale_type().size();
    let (codes, scales) = group.split_at(layout.group() * LANES * layout.bits() / 8);
    let first = scale(layout.scale_type(), &scales[lane * size..(lane + 1) * size]);
    let mxfp4 = layout.encoding() == Encoding::Mxfp4;
    let (factor, bias) = if mxfp4 {
        (first * 0.5, first * -6.0)
    } else {
        (first, scale(layout.scale_type(), &scales[(LANES + lane) * size..(LANES + lane + 1) * size]))
    };
    let chunks = layout.block() / 4;
    for (out, block) in out.chunks_exact_mut(layout.block()).zip(codes.chunks_exact(layout.block_bytes())) {
        for (k, out) in out.iter_mut().enumerate() {
            let mut code = 0;
            let mut plane_at = 0;
            for &(width, shift) in planes(layout.bits()) {
                let vectors = chunks * width / 8;
                let (field, vector) = (k / 4 / vectors, k / 4 % vectors);
                let byte = block[plane_at + vector * 4 * LANES + lane * 4 + k % 4];
                code |= (byte >> (field * width) & (u8::MAX >> (8 - width))) << shift;
                plane_at += vectors * 4 * LANES;
            }
            if mxfp4 {
                code = MXFP4_CODES[usize::from(code)];
            }
            // With scales of 16 bits the product is exact, and a plain sum rounds as the fused form would.
            *out = match layout.scale_type() {
                ScaleType::F32 => f32::from(code).mul_add(factor, bias),
                _ => f32::from(code) * factor + bias,
            };
        }
    }
}

/// One little-endian scale; a short slice reads as zero.
fn scale(scale_type: ScaleType, bytes: &[u8]) -> f32 {
    match (scale_type, bytes) {
        (ScaleType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (ScaleType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        (ScaleType::Bf16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        (ScaleType::E8m0, &[e]) => f32::from_bits(u32::from(e) << 23),
        _ => 0.0,
    }
}
