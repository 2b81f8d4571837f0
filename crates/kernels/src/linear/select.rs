//! How a product is cut into workgroups: a pure function of shape and machine.

use super::layout::{LANES, LinearLayout};

/// Weights that one core streams in a microsecond, in bytes.
const STREAM_PER_MICRO: usize = 15_000;
/// Multiplications that one core does in a microsecond.
const PRODUCTS_PER_MICRO: usize = 150_000;
/// Work below which handing a workgroup to another thread does not pay, in microseconds.
const LEAST_MICROS: usize = 8;
/// Workgroups per worker at most: enough to even out cores of different speed.
const GROUPS_PER_WORKER: usize = 6;

/// Outputs of a workgroup's tile, a multiple of [`LANES`], when `rows` rows (slots, for experts) are multiplied and
/// `workers` threads share the work.
pub fn tile_columns(layout: &LinearLayout, rows: usize, workers: usize) -> usize {
    let panels = layout.panels().max(1);
    let workers = workers.max(1);
    // Each row may choose an expert of its own.
    let streams = rows.clamp(1, layout.experts().max(1));
    let stream = panels.saturating_mul(streams).saturating_mul(layout.panel_bytes()) / STREAM_PER_MICRO;
    let compute = panels.saturating_mul(LANES * layout.inp()).saturating_mul(rows) / PRODUCTS_PER_MICRO;
    let worth = stream.max(compute) / LEAST_MICROS;
    let groups = match worth {
        0 | 1 => 1,
        // Whole rounds: a last workgroup alone would leave the other workers idle.
        _ => worth.next_multiple_of(workers).min(workers * GROUPS_PER_WORKER),
    };
    panels.div_ceil(groups) * LANES
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Encoding, LinearShape, ScaleType};
    use super::*;

    fn groups(out: usize, inp: usize, rows: usize, workers: usize) -> usize {
        let shape = LinearShape::new(out, inp);
        let layout = LinearLayout::new(Encoding::Affine { bits: 4 }, shape, 64, ScaleType::Bf16).unwrap();
        let columns = tile_columns(&layout, rows, workers);
        assert!(columns.is_multiple_of(LANES) && columns > 0);
        out.div_ceil(columns)
    }

    #[test]
    fn small_products_stay_whole() {
        assert_eq!(groups(64, 64, 1, 8), 1);
        assert_eq!(groups(1, 64, 1, 8), 1);
    }

    #[test]
    fn large_products_give_each_worker_a_few_workgroups() {
        for (out, inp, rows) in [(151_936, 2048, 1), (4096, 4096, 512), (12_288, 4096, 8)] {
            for workers in [1, 2, 8, 64] {
                let groups = groups(out, inp, rows, workers);
                assert!(
                    groups >= 4 * workers && groups <= 6 * workers,
                    "{out} × {inp}: {groups} for {workers}"
                );
            }
        }
    }

    #[test]
    fn a_middling_product_is_shared_evenly() {
        // About 115 µs of one core.
        assert_eq!(groups(3072, 1024, 1, 4) % 4, 0);
        assert_eq!(groups(3072, 1024, 1, 2) % 2, 0);
    }

    #[test]
    fn no_shape_divides_by_zero() {
        assert_eq!(groups(1, 0, 0, 0), 1);
    }
}
