//! Choosing experts.

use std::cell::RefCell;

use bessemer_hal::cpu::Invocation;
use bessemer_hal::{Binding, Dispatch, GpuLimits, Result, Slice, Tiling};
use bytemuck::{Pod, Zeroable};

use crate::shaders::launch;
use crate::simd::{self, Simd, Task};
use crate::{Catalog, Isa, Kernel, Op, bounds};

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Softmax over all experts.
    Softmax,
}

/// What is done to the scores of the chosen experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalise {
    /// They stay as they are.
    Keep,
    /// Divided by their sum.
    SumToOne,
}

/// Chooses the `top_k` experts of each row with the highest scores, best first; of equals, the lower id.
#[derive(Clone, Debug)]
pub struct Router {
    /// f32 `[rows, experts]`; a logit that is not a number counts as −∞. Where all are −∞, all scores are 0.
    pub logits: Slice,
    /// u32 `[rows, top_k]`.
    pub ids: Slice,
    /// f32 `[rows, top_k]`: their scores.
    pub weights: Slice,
    /// Rows.
    pub rows: usize,
    /// Experts to choose from.
    pub experts: usize,
    /// Experts to choose.
    pub top_k: usize,
    /// How logits become scores.
    pub scores: Scores,
    /// What is done to the scores of the chosen.
    pub normalise: Normalise,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    experts: u32,
    sum_to_one: u32,
}

static SOFTMAX: Kernel = Kernel { name: "router_softmax", cpu: softmax };

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    rows: u32,
    experts: u32,
    top_k: u32,
    sum_to_one: u32,
}

/// Names and experts at most of the GPU kernels.
const GPU: [(&str, usize); 3] = [("router_128", 128), ("router_512", 512), ("router_2048", 2048)];

impl Router {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { rows, experts, top_k, .. } = *self;
        bounds::holds::<f32>("router", "logits", &self.logits, &[rows, experts])?;
        bounds::holds::<u32>("router", "ids", &self.ids, &[rows, top_k])?;
        bounds::holds::<f32>("router", "weights", &self.weights, &[rows, top_k])?;
        bounds::rule("router", (1..=experts).contains(&top_k), || {
            format!("top_k must be from 1 to the {experts} experts, not {top_k}")
        })
    }

    fn sum_to_one(&self) -> u32 {
        u32::from(self.normalise == Normalise::SumToOne)
    }
}

impl Op for Router {
    fn cpu(&self, catalog: &Catalog) -> Result<Dispatch> {
        let Self { rows, experts, top_k, .. } = *self;
        self.check()?;
        let Scores::Softmax = self.scores;
        let tile_rows = bounds::rows_per_group(rows, experts * 8, catalog.workers());
        let tiling = Tiling::by_rows(rows, top_k, tile_rows);
        Ok(Dispatch {
            pipeline: catalog.pipeline(&SOFTMAX)?,
            bindings: vec![
                Binding::read(self.logits.clone()),
                Binding::write(self.ids.clone(), tiling),
                Binding::write(self.weights.clone(), tiling),
            ],
            params: bytemuck::bytes_of(&Params { experts: experts as u32, sum_to_one: self.sum_to_one() })
                .to_vec(),
            groups: tiling.grid(),
        })
    }

    /// One launch, a workgroup for each row.
    fn gpu(&self, catalog: &Catalog, limits: &GpuLimits, _: Option<&Slice>) -> Result<Vec<Dispatch>> {
        let Self { rows, experts, top_k, .. } = *self;
        self.check()?;
        let Scores::Softmax = self.scores;
        let kernel = GPU.iter().find(|(_, most)| experts <= *most);
        bounds::rule("router", kernel.is_some(), || {
            format!("a GPU chooses from at most 2048 experts, not {experts}")
        })?;
        bounds::indices("router", &[rows, experts])?;
        let bindings = vec![
            Binding::read(self.logits.clone()),
            Binding::write_any(self.ids.clone()),
            Binding::write_any(self.weights.clone()),
        ];
        let params = GpuParams {
            rows: rows as u32,
            experts: experts as u32,
            top_k: top_k as u32,
            sum_to_one: self.sum_to_one(),
        };
        let across = rows.clamp(1, limits.max_groups[0] as usize);
        let name = kernel.map_or("", |(name, _)| name);
        Ok(vec![launch(catalog, name, bindings, &params, [across, rows.div_ceil(across), 1])?])
    }
}

fn softmax(invocation: &mut Invocation<'_>) {
    let Params { experts, sum_to_one } = invocation.params();
    let logits = invocation.input::<f32>(0);
    let (mut ids, mut weights) = (invocation.output::<u32>(1), invocation.output::<f32>(2));
    let normalise = if sum_to_one == 1 { Normalise::SumToOne } else { Normalise::Keep };
    for (row, logits) in (0..ids.rows()).zip(logits.chunks_exact(experts as usize).skip(ids.first_row())) {
        choose(Isa::detect(), logits, normalise, ids.row_mut(row), weights.row_mut(row));
    }
}

thread_local! {
    /// Scores of one row.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// One row: `ids` and `weights` are as long as the number of experts to choose.
pub(crate) fn choose(isa: Isa, logits: &[f32], normalise: Normalise, ids: &mut [u32], weights: &mut [f32]) {
    SCORES.with_borrow_mut(|scores| {
        scores.clear();
        scores.resize(logits.len(), 0.0);
        let total = simd::run(isa, Exponentials { logits, scores });
        // Experts are few: going through all of them once for each choice beats a heap.
        let mut chosen = 0.0;
        for (id, weight) in ids.iter_mut().zip(weights.iter_mut()) {
            let mut best = 0;
            for (expert, score) in scores.iter().enumerate() {
                if *score > scores[best] {
                    best = expert;
                }
            }
            (*id, *weight) = (best as u32, scores[best]);
            chosen += scores[best];
            scores[best] = -1.0;
        }
        let divisor = match normalise {
            Normalise::Keep => total,
            Normalise::SumToOne => chosen,
        };
        for weight in weights {
            *weight /= divisor.max(f32::MIN_POSITIVE);
        }
    });
}

/// `scores = e^(logits − their maximum)`; gives the sum.
struct Exponentials<'a> {
    logits: &'a [f32],
    scores: &'a mut [f32],
}

impl Task for Exponentials<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let none = s.splat(f32::NEG_INFINITY);
        let mut max = s.splat(f32::MIN);
        for x in self.logits.chunks(S::LANES) {
            max = s.max(s.load(x, f32::MIN), max);
        }
        // Finite, so that infinite logits differ from it by a number.
        let max = s.splat(s.reduce_max(max).min(f32::MAX));
        let mut sum = s.splat(0.0);
        for (score, x) in self.scores.chunks_mut(S::LANES).zip(self.logits.chunks(S::LANES)) {
            let x = s.min(s.max(s.load(x, f32::NEG_INFINITY), none), s.splat(f32::MAX));
            let e = s.exp(s.sub(x, max));
            s.store(score, e);
            sum = s.add(sum, e);
        }
        s.reduce_add(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Golden, Random};

    #[test]
    fn agrees_with_the_oracle() {
        let golden = Golden::open("moe_router");
        let cases = golden.cases().iter().filter(|case| case["kind"] == "softmax");
        for case in cases {
            let key = case["key"].as_str().unwrap();
            let size = |name: &str| case[name].as_u64().unwrap() as usize;
            let [x, router] = ["x", "router_weight"].map(|name| golden.f32(&format!("{key}.{name}")));
            let (ids, weights) =
                (golden.words(&format!("{key}.experts")), golden.f32(&format!("{key}.weights")));
            let normalise =
                if case["norm_topk_prob"] == true { Normalise::SumToOne } else { Normalise::Keep };
            for isa in Isa::all_available() {
                for (row, x) in x.chunks(size("hidden")).enumerate() {
                    let logits: Vec<f32> = router
                        .chunks(size("hidden"))
                        .map(|w| w.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>() as f32)
                        .collect();
                    let top_k = size("top_k");
                    let (mut chosen, mut scores) = (vec![0; top_k], vec![0.0; top_k]);
                    choose(isa, &logits, normalise, &mut chosen, &mut scores);
                    assert!(scores.is_sorted_by(|a, b| a >= b));
                    let mut pairs: Vec<_> = chosen.into_iter().zip(scores).collect();
                    pairs.sort_by_key(|pair| pair.0);
                    for (j, (id, score)) in pairs.into_iter().enumerate() {
                        assert_eq!(id, ids[row * top_k + j], "{key} row {row}");
                        assert!((score - weights[row * top_k + j]).abs() <= 1e-5, "{key} row {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_scores_go_to_the_lower_id_and_nan_to_nobody() {
        for isa in Isa::all_available() {
            let (mut ids, mut weights) = ([9; 3], [9.0; 3]);
            let logits = [f32::NAN, 1.0, 2.0, 1.0, f32::NEG_INFINITY, 1.0];
            choose(isa, &logits, Normalise::SumToOne, &mut ids, &mut weights);
            assert_eq!(ids, [2, 1, 3]);
            choose(isa, &[f32::NAN; 5], Normalise::Keep, &mut ids, &mut weights);
            assert_eq!(ids, [0, 1, 2]);
            choose(
                isa,
                &[f32::INFINITY, 0.0, f32::INFINITY, 1.0],
                Normalise::SumToOne,
                &mut ids,
                &mut weights,
            );
            assert_eq!((ids, weights), ([0, 2, 1], [0.5, 0.5, 0.0]));
        }
    }

    #[test]
    fn softmax_adds_up_over_odd_numbers_of_experts() {
        let mut random = Random(1);
        for experts in [1, 3, 8, 17, 60, 128] {
            let logits = random.normal(experts);
            for isa in Isa::all_available() {
                let (mut ids, mut weights) = (vec![0; experts], vec![0.0; experts]);
                choose(isa, &logits, Normalise::Keep, &mut ids, &mut weights);
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{experts}");
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..experts as u32));
            }
        }
    }
}
