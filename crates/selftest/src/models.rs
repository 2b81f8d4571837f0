//! Whole models: those inside this program, on the device, against what transformers computed with them in float32 and
//! against the CPU.

use std::sync::{Arc, OnceLock};

use bessemer_engine::{
    ActivationMode, Engine, EngineOptions, KvChoice, Optimizations, Reply, Request, Sampling,
};
use bessemer_hal::Device;
use serde::Deserialize;

use crate::{Check, Failure, Outcome, Side, Tolerance, Twin, compare, equal};

/// The checks.
pub fn subjects() -> Vec<(&'static str, &'static [Check])> {
    vec![("storyteller", STORYTELLER), ("storyteller_draft", DRAFT)]
}

const STORYTELLER: &[Check] = &[
    Check { name: "greedy_tokens", run: |twin, _| greedy_tokens(twin, "storyteller") },
    Check { name: "probabilities", run: |twin, _| probabilities(twin, "storyteller") },
    Check { name: "default_precision", run: |twin, _| default_precision(twin, "storyteller") },
];

const DRAFT: &[Check] = &[
    Check { name: "greedy_tokens", run: |twin, _| greedy_tokens(twin, "storyteller-draft") },
    Check { name: "probabilities", run: |twin, _| probabilities(twin, "storyteller-draft") },
    Check { name: "default_precision", run: |twin, _| default_precision(twin, "storyteller-draft") },
];

/// What transformers made of one model.
#[derive(Debug, Deserialize)]
struct Oracle {
    greedy_cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    prompt: String,
    prompt_ids: Vec<u32>,
    greedy: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    token: u32,
    /// The five best tokens with their log-probabilities.
    top: Vec<(u32, f32)>,
}

impl Case {
    fn tokens(&self) -> Vec<u32> {
        self.greedy.iter().map(|step| step.token).collect()
    }
}

fn cases(model: &str) -> Result<&'static [Case], Failure> {
    #[derive(Deserialize)]
    struct File {
        #[serde(rename = "storyteller-4bit")]
        storyteller: Oracle,
        #[serde(rename = "storyteller-draft-4bit")]
        draft: Oracle,
    }
    static FILE: OnceLock<Result<File, String>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/storyteller/oracle.json"));
        serde_json::from_str(text).map_err(|error| error.to_string())
    });
    let file = file.as_ref().map_err(|error| Failure::wrong(format!("the oracle: {error}")))?;
    Ok(if model == "storyteller" { &file.storyteller.greedy_cases } else { &file.draft.greedy_cases })
}

/// The model on one of the devices, as the reference computes or as it runs by default.
fn engine(twin: &Twin, side: Side, model: &str, exact: bool) -> Result<Engine, Failure> {
    // All of them, whatever an earlier check on this machine has found: here they are to show that they are right.
    let optimizations = Optimizations::on();
    let mut options =
        EngineOptions { model: model.into(), context: Some(256), optimizations, ..EngineOptions::default() };
    if exact {
        (options.activations, options.kv_type) = (ActivationMode::F32, KvChoice::F32);
    }
    let device: Arc<dyn Device> = twin.catalog(side).device().clone();
    Engine::load_on(device, options).map_err(|error| Failure::wrong(format!("{model}: {error}")))
}

/// The continuations, each alone and all at once, are those of the oracle, token by token.
fn greedy_tokens(twin: &Twin, model: &str) -> Outcome {
    let engine = engine(twin, Side::Device, model, true)?;
    let failed = |error: &dyn std::fmt::Display| Failure::wrong(format!("{model}: {error}"));
    let start = |case: &Case| {
        engine.submit(Request {
            prompt: case.prompt_ids.clone(),
            sampling: Sampling::greedy(),
            max_tokens: Some(case.greedy.len()),
            ignore_end: true,
            ..Request::default()
        })
    };
    let finish = |mut stream: bessemer_engine::ReplyStream| {
        let mut tokens = Vec::new();
        loop {
            match stream.blocking_next() {
                Some(Reply::Token(token)) => tokens.push(token.id),
                Some(Reply::Finished { .. }) => return Ok(tokens),
                Some(Reply::Failed(error)) => return Err(failed(&error)),
                None => return Err(failed(&"a stream ended without an end")),
            }
        }
    };
    let cases = cases(model)?;
    for case in cases {
        let got = finish(start(case).map_err(|error| failed(&error))?)?;
        equal(&format!("{model}, {:?}, alone", case.prompt), &case.tokens(), &got)?;
    }
    let streams: Vec<_> = cases.iter().map(&start).collect();
    for (case, stream) in cases.iter().zip(streams) {
        let got = finish(stream.map_err(|error| failed(&error))?)?;
        equal(&format!("{model}, {:?}, with the others", case.prompt), &case.tokens(), &got)?;
    }
    Ok(())
}

/// Log-probabilities after each of `ids`, f32 `[ids, vocab]`.
fn log_probabilities(engine: &Engine, ids: &[u32]) -> Result<Vec<f32>, Failure> {
    let mut rows = engine.logits(ids).map_err(|error| Failure::wrong(error.to_string()))?;
    for row in rows.chunks_mut(engine.info().vocab) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let shift = largest + total.ln() as f32;
        row.iter_mut().for_each(|logit| *logit -= shift);
    }
    Ok(rows)
}

/// The log-probabilities of the best five at every step are those of the oracle: prefill, where `greedy_tokens` decodes.
fn probabilities(twin: &Twin, model: &str) -> Outcome {
    let engine = engine(twin, Side::Device, model, true)?;
    let vocab = engine.info().vocab;
    for case in cases(model)? {
        let ids: Vec<u32> = [case.prompt_ids.as_slice(), &case.tokens()].concat();
        let rows = log_probabilities(&engine, &ids)?;
        let (mut want, mut got) = (Vec::new(), Vec::new());
        for (at, step) in case.greedy.iter().enumerate() {
            let row = &rows[(case.prompt_ids.len() - 1 + at) * vocab..][..vocab];
            for &(token, probability) in &step.top {
                want.push(probability);
                got.push(row[token as usize]);
            }
        }
        let what = format!("{model}, {:?}, best five of each step", case.prompt);
        compare(&what, &want, &got, EXACT)?;
    }
    Ok(())
}

/// With the activations and the KV cache that are the default, the device stays as near to the exact distributions as the
/// CPU does. Judged by quantiles: where the router all but tosses a coin, a rounding chooses another expert, and one such
/// position outweighs all others in a mean.
fn default_precision(twin: &Twin, model: &str) -> Outcome {
    let exact = engine(twin, Side::Cpu, model, true)?;
    let default = [engine(twin, Side::Cpu, model, false)?, engine(twin, Side::Device, model, false)?];
    let vocab = exact.info().vocab;
    let mut divergences = [Vec::new(), Vec::new()];
    for case in cases(model)? {
        let ids: Vec<u32> = [case.prompt_ids.as_slice(), &case.tokens()].concat();
        let want = log_probabilities(&exact, &ids)?;
        for (divergences, engine) in divergences.iter_mut().zip(&default) {
            let got = log_probabilities(engine, &ids)?;
            divergences.extend(want.chunks(vocab).zip(got.chunks(vocab)).map(|(p, q)| divergence(p, q)));
        }
    }
    for list in &mut divergences {
        list.sort_by(f64::total_cmp);
    }
    for (what, part) in [("median", 0.5), ("90th percentile", 0.9)] {
        let [cpu, device] = divergences.each_ref().map(|list| list[(list.len() as f64 * part) as usize]);
        // NaN is not small.
        let near = device <= 1.5 * cpu + 1e-6;
        if !near {
            return Err(Failure::wrong(format!(
                "{model}: the distributions of the next token are off by {device:e} ({what} of the Kullback-Leibler \
                 divergence at {} positions), on the CPU by {cpu:e}; at most half as much again is expected",
                divergences[0].len()
            )));
        }
    }
    Ok(())
}

/// Kullback-Leibler divergence of two distributions, given as log-probabilities.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| f64::from(p).exp() * (f64::from(p) - f64::from(q))).sum()
}

/// The oracle is written with five digits; the rest is the order of sums in f32.
const EXACT: Tolerance = Tolerance::new(1e-3, 0.0);
