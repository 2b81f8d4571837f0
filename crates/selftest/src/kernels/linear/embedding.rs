//! Rows of packed matrices by index, in every encoding.

use bessemer_kernels::linear::{Embedding, Encoding, LinearLayout, LinearShape, Weights};
use rand::Rng;
use rand::rngs::SmallRng;

use super::sample::{ENCODINGS, Sample};
use crate::data::one_of;
use crate::{Check, Failure, Outcome, Side, Tolerance, Twin, compare};

pub(in crate::kernels) const CHECKS: &[Check] = &[Check { name: "every_encoding", run: every_encoding }];

/// One product and one sum of f32, which a device may or may not fuse.
const CLOSE: Tolerance = Tolerance::new(1e-5, 1e-6);

/// Some ids leave the matrix, which further rows follow.
fn every_encoding(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for encoding in ENCODINGS {
        let most = if matches!(encoding, Encoding::Affine { .. }) { 12 } else { 30 };
        let steps = rng.random_range(1..most);
        let (vocabulary, further) = (rng.random_range(1..60), 5);
        let sample = Sample::draw(twin, rng, encoding, (1, vocabulary + further, steps))?;
        let shape = LinearShape::new(vocabulary, sample.layout.inp());
        let (group, scale_type) = (sample.layout.group(), sample.layout.scale_type());
        let layout = LinearLayout::new(encoding, shape, group, scale_type)
            .map_err(|error| Failure::wrong(error.to_string()))?;
        let rows = rng.random_range(1..=70);
        let ids: Vec<u32> = (0..rows)
            .map(|_| {
                if rng.random_ratio(1, 9) {
                    u32::MAX
                } else {
                    rng.random_range(0..(vocabulary + further) as u32)
                }
            })
            .collect();
        let ids = twin.put(&ids)?;
        let out = twin.rubbish::<f32>(rows * sample.layout.inp())?;
        let scale = one_of(rng, &[1.0, 0.3, 45.25]);
        twin.run(|side| Embedding {
            ids: ids.on(side),
            weights: Weights { layout, ..sample.on(side) },
            out: out.on(side),
            rows,
            scale,
        })?;
        let (want, got) = (twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?);
        compare(
            &format!("{rows} rows of {vocabulary} in {}, times {scale}", sample.describe()),
            &want,
            &got,
            CLOSE,
        )?;
    }
    Ok(())
}
