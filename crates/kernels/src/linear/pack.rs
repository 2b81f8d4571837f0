//! Repacking of weights from their file's order, once at load.
//!
//! A block of 16 rows is spread to bytes, transposed by chunks of four inputs and squeezed into bit planes, all in a
//! kilobyte of stack; plain Rust, since even so it runs faster than a disk delivers.

use std::ops::Range;

use super::layout::{Encoding, LANES, LinearError, LinearLayout, ScaleType, planes};

/// A matrix (or a stack, one after the other) as a file has it; nothing needs to be aligned.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Plain weights row-major, or codes as a little-endian bit stream, least significant bit first, each row
    /// starting at a byte (MLX's u32 words).
    pub weights: &'a [u8],
    /// Scales, row-major `[out][inp / group]`; for mxfp4 one e8m0 byte each.
    pub scales: Option<(ScaleType, &'a [u8])>,
    /// Biases of affine weights, of the same type and shape as the scales.
    pub biases: Option<&'a [u8]>,
}

impl Source<'_> {
    /// The type that the scales of this source are packed in: 16 bits whenever that loses nothing.
    pub fn scale_type(&self) -> ScaleType {
        match self.scales {
            Some((ScaleType::F32, scales)) => {
                ScaleType::narrowest(&[scales, self.biases.unwrap_or_default()])
            }
            Some((other, _)) => other,
            None => ScaleType::F32,
        }
    }

    fn check(&self, layout: &LinearLayout) -> Result<(), LinearError> {
        let expect = |what: &str, given: usize, wanted: usize| {
            if given == wanted {
                return Ok(());
            }
            Err(LinearError::new(format!(
                "{what} of a {} × {} × {} matrix have {given} bytes, {wanted} are needed: check shape and bits",
                layout.experts(),
                layout.out(),
                layout.inp()
            )))
        };
        let rows = layout.experts() * layout.out();
        expect("weights", self.weights.len(), rows * layout.inp() * layout.bits() / 8)?;
        if layout.is_quantised() {
            let count = rows * layout.inp() / layout.group();
            let Some((given, scales)) = self.scales else {
                return Err(LinearError::new("quantised weights come without scales: name their tensor"));
            };
            let same = given == layout.scale_type()
                || (given == ScaleType::F32 && layout.scale_type() != ScaleType::E8m0);
            if !same {
                return Err(LinearError::new(format!(
                    "scales are {given:?}, the layout stores {:?}: give f32 or the same type",
                    layout.scale_type()
                )));
            }
            expect("scales", scales.len(), count * given.size())?;
            let biases = if layout.encoding() == Encoding::Mxfp4 { 0 } else { count * given.size() };
            expect("biases", self.biases.unwrap_or_default().len(), biases)?;
        }
        Ok(())
    }
}

/// Packs `panels` (counted through the stack: expert `e` starts at `e · layout.panels()`) into `out`, which has
/// exactly their bytes. Rows beyond the last output become zeros.
///
/// # Errors
/// When the source does not have the layout's sizes, or `out` not the panels'.
pub fn pack(
    layout: &LinearLayout,
    source: &Source<'_>,
    panels: Range<usize>,
    out: &mut [u8],
) -> Result<(), LinearError> {
    source.check(layout)?;
    let total = layout.experts() * layout.panels();
    if panels.start > panels.end || panels.end > total || out.len() != panels.len() * layout.panel_bytes() {
        return Err(LinearError::new(format!(
            "panels {panels:?} of {total} do not fill {} bytes: a panel has {}",
            out.len(),
            layout.panel_bytes()
        )));
    }
    if layout.panel_bytes() == 0 {
        return Ok(());
    }
    for (panel, out) in panels.zip(out.chunks_exact_mut(layout.panel_bytes())) {
        let (expert, panel) = (panel / layout.panels(), panel % layout.panels());
        let lanes = LANES.min(layout.out() - panel * LANES);
        let first_row = expert * layout.out() + panel * LANES;
        let rows = Rows { first_row, lanes };
        match layout.encoding() {
            Encoding::F32 => plain::<4>(layout, source, rows, out),
            Encoding::F16 | Encoding::Bf16 => plain::<2>(layout, source, rows, out),
            Encoding::Affine { .. } | Encoding::Mxfp4 => quantised(layout, source, rows, out),
        }
    }
    Ok(())
}

/// The source rows of one panel.
#[derive(Clone, Copy)]
struct Rows {
    first_row: usize,
    lanes: usize,
}

fn plain<const SIZE: usize>(layout: &LinearLayout, source: &Source<'_>, rows: Rows, out: &mut [u8]) {
    const TILE: usize = 32;
    let inp = layout.inp();
    let (weights, _) = source.weights.as_chunks::<SIZE>();
    let (out, _) = out.as_chunks_mut::<SIZE>();
    for first in (0..inp).step_by(TILE) {
        let inputs = TILE.min(inp - first);
        let tile = &mut out[first * LANES..(first + inputs) * LANES];
        for lane in 0..LANES {
            if lane < rows.lanes {
                let row = &weights[(rows.first_row + lane) * inp + first..][..inputs];
                for (to, from) in tile.chunks_exact_mut(LANES).zip(row) {
                    to[lane] = *from;
                }
            } else {
                tile.chunks_exact_mut(LANES).for_each(|to| to[lane] = [0; SIZE]);
            }
        }
    }
}

/// Chunks (four inputs of 16 lanes, a 32-bit word a lane) of a block; the smaller block uses the first half.
type Chunks = [[u32; LANES]; 16];

fn quantised(layout: &LinearLayout, source: &Source<'_>, rows: Rows, out: &mut [u8]) {
    let groups = layout.inp() / layout.group();
    let row_bytes = layout.inp() * layout.bits() / 8;
    let block_source = layout.block() * layout.bits() / 8;
    let code_bytes = layout.group() * LANES * layout.bits() / 8;
    let chunk_count = layout.block() / 4;
    let mut chunks: Chunks = [[0; LANES]; 16];
    for (group, out) in out.chunks_exact_mut(layout.group_bytes()).enumerate() {
        let (codes, scales) = out.split_at_mut(code_bytes);
        for (block, out) in codes.chunks_exact_mut(layout.block_bytes()).enumerate() {
            let offset = (group * layout.group() + block * layout.block()) * layout.bits() / 8;
            for lane in 0..rows.lanes {
                let from = &source.weights[(rows.first_row + lane) * row_bytes + offset..][..block_source];
                spread(from, layout.bits(), lane, &mut chunks[..chunk_count]);
            }
            let mut at = 0;
            for &(width, shift) in planes(layout.bits()) {
                at += squeeze(&chunks[..chunk_count], width, shift, &mut out[at..]);
            }
        }
        let size = layout.scale_type().size();
        let (scales, biases) = scales.split_at_mut(LANES * size);
        if let Some((given, from)) = source.scales {
            narrow(from, given, layout.scale_type(), (rows, group, groups), scales);
            if let Some(from) = source.biases {
                narrow(from, given, layout.scale_type(), (rows, group, groups), biases);
            }
        }
    }
}

/// Spreads the codes of one row's block to bytes, four to a word, into its lane of each chunk.
fn spread(from: &[u8], bits: usize, lane: usize, chunks: &mut [[u32; LANES]]) {
    match bits {
        8 => {
            for (chunk, word) in chunks.iter_mut().zip(from.as_chunks::<4>().0) {
                chunk[lane] = u32::from_le_bytes(*word);
            }
        }
        4 => {
            for (chunk, word) in chunks.iter_mut().zip(from.as_chunks::<2>().0) {
                let x = u32::from(u16::from_le_bytes(*word));
                let x = (x | x << 8) & 0x00ff_00ff;
                chunk[lane] = (x | x << 4) & 0x0f0f_0f0f;
            }
        }
        _ => {
            // Eight bytes more than a block of 8-bit codes, so that a word may be read anywhere.
            let mut padded = [0; 72];
            padded[..from.len()].copy_from_slice(from);
            let mask = (1 << bits) - 1;
            for (index, chunk) in chunks.iter_mut().enumerate() {
                let bit = index * 4 * bits;
                let mut word = [0; 8];
                word.copy_from_slice(&padded[bit / 8..bit / 8 + 8]);
                let x = u64::from_le_bytes(word) >> (bit % 8);
                let code = |i: usize| ((x >> (i * bits)) as u32 & mask) << (8 * i);
                chunk[lane] = code(0) | code(1) | code(2) | code(3);
            }
        }
    }
}

/// Writes one bit plane: byte `j` of vector `v` holds chunk `f · vectors + v` in field `f`. Returns its bytes.
fn squeeze(chunks: &[[u32; LANES]], width: usize, shift: usize, out: &mut [u8]) -> usize {
    let vectors = chunks.len() * width / 8;
    let mask = u32::from(u8::MAX >> (8 - width)) * 0x0101_0101;
    for (vector, out) in out.chunks_exact_mut(4 * LANES).take(vectors).enumerate() {
        let mut words = [0_u32; LANES];
        for field in 0..8 / width {
            for (word, code) in words.iter_mut().zip(&chunks[field * vectors + vector]) {
                *word |= (code >> shift & mask) << (field * width);
            }
        }
        for (to, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }
    vectors * 4 * LANES
}

/// Gathers the scales of one group, lane by lane.
fn narrow(
    from: &[u8],
    given: ScaleType,
    wanted: ScaleType,
    (rows, group, groups): (Rows, usize, usize),
    out: &mut [u8],
) {
    out.fill(0);
    let size = given.size();
    for (lane, to) in out.chunks_exact_mut(wanted.size()).take(rows.lanes).enumerate() {
        let at = ((rows.first_row + lane) * groups + group) * size;
        let value = &from[at..at + size];
        if given == wanted {
            to.copy_from_slice(value);
        } else {
            let value = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
            match wanted {
                ScaleType::F16 => to.copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                _ => to.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            }
        }
    }
}
