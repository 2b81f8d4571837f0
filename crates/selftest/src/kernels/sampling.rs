//! Sampling. Greedy tokens must be equal. Drawn tokens may differ where the random number is as close to the border of
//! two tokens as rounding moves that border; such a draw is rare.

use bessemer_kernels::sampling::{
    Lists, MAX_LOGPROBS, NO_LOGPROBS, NO_MASK, RowParams, Sample, SampleOut, distribution, uniform,
};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use crate::data::{floats, one_of};
use crate::{Check, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

pub(super) const CHECKS: &[Check] = &[
    Check { name: "greedy", run: greedy },
    Check { name: "greedy_large", run: greedy_large },
    Check { name: "greedy_special", run: greedy_special },
    Check { name: "greedy_adjusted", run: greedy_adjusted },
    Check { name: "draw_from_all", run: draw_from_all },
    Check { name: "draw_from_few", run: draw_from_few },
    Check { name: "draw_from_many", run: draw_from_many },
    Check { name: "draw_from_ties", run: draw_from_ties },
    Check { name: "draw_adjusted", run: draw_adjusted },
    Check { name: "draw_special", run: draw_special },
    Check { name: "logprobs", run: logprobs },
    Check { name: "long_history", run: long_history },
];

/// Logits and all that goes with them.
struct Case {
    vocab: usize,
    logits: Vec<f32>,
    rows: Vec<RowParams>,
    history: Vec<u32>,
    bias_ids: Vec<u32>,
    bias_values: Vec<f32>,
    masks: Vec<u32>,
    mask_words: usize,
}

/// What the two devices gave.
struct Results {
    out: [Vec<SampleOut>; 2],
    top_ids: [Vec<u32>; 2],
    top_logprobs: [Vec<f32>; 2],
}

impl Case {
    fn new(vocab: usize, logits: Vec<f32>, rows: Vec<RowParams>) -> Self {
        Self {
            vocab,
            logits,
            rows,
            history: vec![0; 4],
            bias_ids: vec![0; 4],
            bias_values: vec![0.0; 4],
            masks: vec![0; 4],
            mask_words: 0,
        }
    }

    fn lists(&self) -> Lists<'_> {
        Lists {
            history: &self.history,
            bias_ids: &self.bias_ids,
            bias_values: &self.bias_values,
            masks: &self.masks,
            mask_words: self.mask_words,
        }
    }

    fn run(&self, twin: &Twin) -> Result<Results, Failure> {
        let rows = self.rows.len();
        let (logits, params) = (twin.put(&self.logits)?, twin.put(&self.rows)?);
        let (history, masks) = (twin.put(&self.history)?, twin.put(&self.masks)?);
        let (bias_ids, bias_values) = (twin.put(&self.bias_ids)?, twin.put(&self.bias_values)?);
        let out = twin.rubbish::<SampleOut>(rows)?;
        let top_ids = twin.rubbish::<u32>(rows * MAX_LOGPROBS)?;
        let top_logprobs = twin.rubbish::<f32>(rows * MAX_LOGPROBS)?;
        twin.run(|side| Sample {
            logits: logits.on(side),
            params: params.on(side),
            history: history.on(side),
            bias_ids: bias_ids.on(side),
            bias_values: bias_values.on(side),
            masks: masks.on(side),
            mask_words: self.mask_words,
            out: out.on(side),
            top_ids: top_ids.on(side),
            top_logprobs: top_logprobs.on(side),
            rows,
            vocab: self.vocab,
        })?;
        Ok(Results {
            out: [twin.get(Side::Cpu, &out)?, twin.get(Side::Device, &out)?],
            top_ids: [twin.get(Side::Cpu, &top_ids)?, twin.get(Side::Device, &top_ids)?],
            top_logprobs: [twin.get(Side::Cpu, &top_logprobs)?, twin.get(Side::Device, &top_logprobs)?],
        })
    }

    /// All tokens must be equal.
    fn equal(&self, twin: &Twin) -> Outcome {
        let results = self.run(twin)?;
        let [want, got] = results.out.each_ref().map(|out| out.iter().map(|o| o.token).collect::<Vec<_>>());
        for (row, (want, got)) in want.iter().zip(&got).enumerate() {
            if want != got {
                let logit = |id: &u32| self.logits.get(row * self.vocab + *id as usize);
                return Err(Failure::wrong(format!(
                    "row {row} of {} by {} tokens: token {got} (logit {:?}), should be {want} ({:?}); {:?}",
                    self.rows.len(),
                    self.vocab,
                    logit(got),
                    logit(want),
                    self.rows[row]
                )));
            }
        }
        self.equal_logprobs(&results)
    }

    fn equal_logprobs(&self, results: &Results) -> Outcome {
        const CLOSE: Tolerance = Tolerance::new(3e-6, 1e-5);
        let what = format!("{} rows of {} tokens", self.rows.len(), self.vocab);
        let [want, got] = &results.top_ids;
        equal(&format!("top_ids, {what}"), want, got)?;
        let [want, got] = &results.top_logprobs;
        compare(&format!("top_logprobs, {what}"), want, got, CLOSE)?;
        // A row that drew another token has another logprob.
        let [want, got] = &results.out;
        let pairs = want.iter().zip(got).filter(|(want, got)| want.token == got.token);
        let (want, got): (Vec<_>, Vec<_>) = pairs.map(|(want, got)| (want.logprob, got.logprob)).unzip();
        compare(&format!("logprob, {what}"), &want, &got, CLOSE)
    }

    /// Nearly all tokens must be equal, and the others at a border.
    fn close(&self, twin: &Twin) -> Outcome {
        let results = self.run(twin)?;
        let mut different = 0;
        for (row, params) in self.rows.iter().enumerate() {
            let [want, got] = results.out.each_ref().map(|out| out[row].token);
            if want == got {
                continue;
            }
            different += 1;
            let logits = &self.logits[row * self.vocab..][..self.vocab];
            let distance = self.distance(logits, params, got);
            if distance > 0.0 {
                return Err(Failure::wrong(format!(
                    "row {row} of {} by {} tokens: token {got}, should be {want}; {distance:e} too far; {params:?}",
                    self.rows.len(),
                    self.vocab
                )));
            }
        }
        if different > 1 + self.rows.len() / 100 {
            return Err(Failure::wrong(format!(
                "{different} of {} draws from {} tokens differ; rounding moves less than a hundredth",
                self.rows.len(),
                self.vocab
            )));
        }
        self.equal_logprobs(&results)
    }

    /// How far, beyond what rounding explains, a draw's random number is from the range that gives `token`.
    fn distance(&self, logits: &[f32], params: &RowParams, token: u32) -> f64 {
        let probabilities = distribution(logits, params, self.lists());
        let Some(&own) = probabilities.get(token as usize) else { return f64::INFINITY };
        let below: f64 = probabilities[..token as usize].iter().sum();
        let random = uniform(params.seed, params.step);
        let outside = (below - random).max(random - below - own).max(0.0);
        // Where a filter's edge falls between two tokens by rounding, one token more or less is kept.
        let filtered = params.top_p < 1.0 || params.min_p > 0.0;
        let least = probabilities.iter().copied().filter(|p| *p > 0.0).fold(1.0, f64::min);
        (outside - if filtered { 1.01 * least } else { 0.0 } - 1e-6).max(0.0)
    }
}

/// Numbers of about a normal distribution.
fn normal(rng: &mut SmallRng, n: usize, spread: f32) -> Vec<f32> {
    let four = floats(rng, 4 * n);
    four.chunks_exact(4).map(|x| x.iter().sum::<f32>() * 0.866 * spread).collect()
}

/// The same, cut to steps, so that many are equal.
fn in_steps(mut logits: Vec<f32>, step: f32) -> Vec<f32> {
    logits.iter_mut().for_each(|x| *x = (*x / step).round() * step);
    logits
}

fn drawn(rng: &mut SmallRng) -> RowParams {
    RowParams {
        seed: rng.next_u64(),
        step: rng.random_range(0..5000),
        temperature: one_of(rng, &[1.0, 0.7, 0.2, 1.5]),
        ..RowParams::default()
    }
}

fn odd_vocab(rng: &mut SmallRng) -> usize {
    match rng.random_range(0..4) {
        0 => rng.random_range(1..200),
        1 => rng.random_range(200..5000),
        2 => one_of(rng, &[2047, 2048, 2049, 4096, 8192, 32_000]),
        _ => rng.random_range(5000..30_000),
    }
}

fn greedy(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for step in [1e-6, 0.5] {
        let (vocab, rows) = (odd_vocab(rng), rng.random_range(1..=40));
        let logits = in_steps(normal(rng, rows * vocab, 3.0), step);
        Case::new(vocab, logits, vec![RowParams::default(); rows]).equal(twin)?;
    }
    Ok(())
}

fn greedy_large(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (vocab, rows) = (one_of(rng, &[151_936, 128_256, 262_144, 50_257]), 2);
    let logits = in_steps(normal(rng, rows * vocab, 3.0), 0.01);
    Case::new(vocab, logits, vec![RowParams::default(); rows]).equal(twin)
}

/// Rows with numbers that are none, infinities and zeros of both signs.
fn special_logits(rng: &mut SmallRng, rows: usize, vocab: usize) -> Vec<f32> {
    let mut logits = in_steps(normal(rng, rows * vocab, 2.0), 0.25);
    for row in logits.chunks_mut(vocab) {
        let special =
            one_of(rng, &[f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX]);
        let other = one_of(rng, &[f32::NAN, f32::NEG_INFINITY, 0.0, -0.0, -1.0]);
        let shares = one_of(rng, &[(2, 1), (100, 100), (50, 2), (2, 3)]);
        for x in row.iter_mut() {
            if rng.random_range(0..shares.0) == 0 {
                *x = special;
            } else if rng.random_range(0..shares.1) == 0 {
                *x = other;
            }
        }
    }
    logits
}

fn greedy_special(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (vocab, rows) = (rng.random_range(1..5000), rng.random_range(4..=40));
    let logits = special_logits(rng, rows, vocab);
    let temperature = one_of(rng, &[0.0, -1.0, f32::NAN, f32::NEG_INFINITY]);
    let rows = vec![RowParams { temperature, logprobs: 20, ..RowParams::default() }; rows];
    Case::new(vocab, logits, rows).equal(twin)
}

/// Gives the rows histories, biases and masks; some leave their lists, some ids are no tokens.
fn adjust(case: &mut Case, rng: &mut SmallRng, exact: bool) {
    let vocab = case.vocab as u32;
    let list = rng.random_range(4..4000);
    // Few tokens, so that they occur often.
    let known = rng.random_range(1..=vocab + 3);
    case.history = (0..list).map(|_| rng.random_range(0..known)).collect();
    let biases = rng.random_range(4..700);
    case.bias_ids = (0..biases).map(|_| rng.random_range(0..vocab + 3)).collect();
    case.bias_values = (0..biases).map(|_| f32::from(rng.random_range(-20_i8..20)) * 0.25).collect();
    case.mask_words = rng.random_range(0..=case.vocab.div_ceil(32) + 2);
    case.masks = (0..2 * case.mask_words + 4).map(|_| one_of(rng, &[0, u32::MAX, 0x8001_0f01])).collect();
    for row in &mut case.rows {
        if rng.random_ratio(2, 3) {
            row.history_start = rng.random_range(0..list as u32);
            row.history_len = one_of(rng, &[0, 3, 300, list as u32, u32::MAX]);
            row.prompt_len = rng.random_range(0..=list as u32);
            let eighths = |rng: &mut SmallRng| f32::from(rng.random_range(-8_i8..=16)) / 8.0;
            row.presence_penalty = eighths(rng);
            row.frequency_penalty = if exact { eighths(rng) } else { 0.3 };
            row.repetition_penalty = if exact { one_of(rng, &[0.5, 1.0, 2.0]) } else { 1.3 };
        }
        if rng.random_ratio(1, 2) {
            row.bias_start = rng.random_range(0..biases as u32);
            row.bias_len = one_of(rng, &[1, 5, 300, u32::MAX]);
        }
        if rng.random_ratio(1, 2) {
            row.mask_start = rng.random_range(0..case.masks.len() as u32 + 2);
        }
    }
}

fn greedy_adjusted(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for _ in 0..3 {
        let (vocab, rows) = (odd_vocab(rng), rng.random_range(1..=40));
        let logits = in_steps(normal(rng, rows * vocab, 2.0), 0.125);
        let mut case = Case::new(vocab, logits, vec![RowParams::default(); rows]);
        adjust(&mut case, rng, true);
        case.equal(twin)?;
    }
    Ok(())
}

fn draw_from_all(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for spread in [0.01, 1.0, 6.0] {
        let (vocab, rows) = (odd_vocab(rng), 40);
        let params = (0..rows).map(|_| drawn(rng)).collect();
        Case::new(vocab, normal(rng, rows * vocab, spread), params).close(twin)?;
    }
    Ok(())
}

/// Filters that few tokens pass.
fn draw_from_few(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for spread in [2.0, 8.0] {
        let (vocab, rows) = (odd_vocab(rng), 40);
        let params = (0..rows)
            .map(|_| {
                let (top_k, top_p, min_p) = one_of(
                    rng,
                    &[
                        (20, 0.8, 0.0),
                        (1, 1.0, 0.0),
                        (40, 1.0, 0.05),
                        (0, 0.3, 0.0),
                        (0, 0.6, 0.001),
                        (0, 1.0, 0.1),
                        (200, 0.95, 0.0),
                        (50, 0.0, 0.0),
                        (5, -1.0, 2.0),
                    ],
                );
                RowParams { top_k, top_p, min_p, ..drawn(rng) }
            })
            .collect();
        Case::new(vocab, normal(rng, rows * vocab, spread), params).close(twin)?;
    }
    Ok(())
}

fn many(rng: &mut SmallRng, vocab: usize) -> RowParams {
    let (top_k, top_p, min_p) = one_of(
        rng,
        &[
            (vocab as u32 / 2, 1.0, 0.0),
            (vocab as u32 * 2 / 3, 0.9, 0.0),
            (3000, 0.99, 0.001),
            (0, 0.9, 0.0),
            (0, 0.999, 0.0),
            (0, 0.5, 0.2),
            (0, 1.0, 0.01),
            (u32::MAX, 0.97, 0.0),
        ],
    );
    RowParams { top_k, top_p, min_p, ..drawn(rng) }
}

/// Filters that thousands of tokens pass.
fn draw_from_many(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for spread in [0.001, 0.5, 2.0] {
        let (vocab, rows) = (rng.random_range(3000..20_000), 30);
        let params = (0..rows).map(|_| many(rng, vocab)).collect();
        Case::new(vocab, normal(rng, rows * vocab, spread), params).close(twin)?;
    }
    Ok(())
}

/// Equal logits by the thousand, so that ids decide.
fn draw_from_ties(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for step in [0.1, 1.0, 1e6] {
        let (vocab, rows) = (rng.random_range(2000..20_000), 30);
        let params = (0..rows).map(|_| RowParams { logprobs: 20, ..many(rng, vocab) }).collect();
        Case::new(vocab, in_steps(normal(rng, rows * vocab, 1.0), step), params).close(twin)?;
    }
    Ok(())
}

fn draw_adjusted(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for exact in [true, false] {
        let (vocab, rows) = (odd_vocab(rng), 40);
        let params = (0..rows).map(|_| many(rng, vocab)).collect();
        let mut case = Case::new(vocab, normal(rng, rows * vocab, 2.0), params);
        adjust(&mut case, rng, exact);
        case.close(twin)?;
    }
    Ok(())
}

fn draw_special(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (vocab, rows) = (rng.random_range(1..5000), 40);
    let params = (0..rows)
        .map(|_| RowParams {
            temperature: one_of(rng, &[1.0, 1e-40, 1e-9, 1e9, f32::INFINITY]),
            logprobs: one_of(rng, &[NO_LOGPROBS, 0, 1, 20, 21]),
            ..many(rng, vocab)
        })
        .collect();
    Case::new(vocab, special_logits(rng, rows, vocab), params).close(twin)
}

fn logprobs(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    for spread in [0.1, 3.0, 20.0] {
        let (vocab, rows) = (odd_vocab(rng), rng.random_range(1..=20));
        let params = (0..rows)
            .map(|_| RowParams { logprobs: one_of(rng, &[0, 1, 5, 20, 25, NO_LOGPROBS]), ..drawn(rng) })
            .collect();
        let mut case = Case::new(vocab, normal(rng, rows * vocab, spread), params);
        if rng.random_ratio(1, 2) {
            adjust(&mut case, rng, true);
        }
        case.close(twin)?;
    }
    Ok(())
}

/// Penalties over the longest histories that models take.
fn long_history(twin: &Twin, rng: &mut SmallRng) -> Outcome {
    let (vocab, len) = (rng.random_range(1000..9000), 131_072);
    let row = RowParams {
        history_len: len,
        prompt_len: rng.random_range(0..len),
        frequency_penalty: 0.125,
        presence_penalty: 1.5,
        repetition_penalty: 2.0,
        mask_start: NO_MASK,
        ..RowParams::default()
    };
    let mut case = Case::new(vocab, in_steps(normal(rng, 2 * vocab, 20.0), 0.125), vec![row; 2]);
    case.history = (0..len).map(|_| rng.random_range(0..vocab as u32)).collect();
    case.equal(twin)
}
