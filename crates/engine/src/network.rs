//! A step on the device: the network records the rows, the sampler draws from their logits, and only tokens come back
//! (and the logits of evaluated rows, which were asked for).

use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::Slice;
use bessemer_kernels::sampling::{MAX_LOGPROBS, RowParams, Sample, SampleOut};
use bessemer_model::{KvCache, Model, ModelError};
use bessemer_runtime::{Recorder, Runtime, Step};

use crate::batch::{Draw, StepInput};
use crate::worker::{Forward, StepOutput};
use crate::{EngineError, Result, Token};

/// How long a step may take before it counts as failed. A large prompt on a small machine takes minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(1800);

/// A model with its KV cache on a device.
#[derive(Debug)]
pub(crate) struct Network {
    runtime: Arc<Runtime>,
    model: Model,
    kv: KvCache,
    name: String,
}

impl Network {
    /// `name` is what messages call the model.
    pub(crate) fn new(runtime: Arc<Runtime>, model: Model, kv: KvCache, name: String) -> Self {
        Self { runtime, model, kv, name }
    }
}

impl Forward for Network {
    fn forward(&mut self, step: &StepInput<'_>) -> Result<StepOutput> {
        let error = |error| model_error(&self.name, error);
        let vocab = self.model.config().vocab_size;
        let row_bytes = (vocab * size_of::<f32>()) as u64;
        let mut recorder = self.runtime.recorder("step")?;
        let batch = step.batch.upload(&mut recorder).map_err(error)?;
        let logits = self.model.encode(&batch, &self.kv, &mut recorder).map_err(error)?; // [draws + evaluated, vocab]
        let (draws, evaluated) = (step.draws.len() as u64, step.evaluated.len() as u64);
        let drawn = match draws {
            0 => None,
            _ => Some(Drawn::record(&mut recorder, &step.draws, logits.slice(0, draws * row_bytes)?, vocab)?),
        };
        let done = recorder.submit()?;
        done.wait(STEP_TIMEOUT)?;
        let tokens = drawn.map_or(Ok(Vec::new()), |drawn| drawn.read(&done, &step.draws))?;
        let logits = match evaluated {
            0 => Vec::new(),
            _ => done.read(&logits.slice(draws * row_bytes, evaluated * row_bytes)?)?,
        };
        Ok(StepOutput { tokens, logits })
    }
}

/// Where a step's draws come out.
struct Drawn {
    out: Slice,
    /// `[draws, MAX_LOGPROBS]` each.
    top: (Slice, Slice),
}

impl Drawn {
    fn record(recorder: &mut Recorder<'_>, draws: &[Draw<'_>], logits: Slice, vocab: usize) -> Result<Self> {
        let rows = draws.len();
        let lists = Lists::new(draws);
        let top_bytes = rows * MAX_LOGPROBS * size_of::<u32>();
        let drawn = Self {
            out: recorder.transient("drawn", rows * size_of::<SampleOut>())?,
            top: (recorder.transient("top_ids", top_bytes)?, recorder.transient("top_logprobs", top_bytes)?),
        };
        let sample = Sample {
            logits,
            params: recorder.input("sampling", &lists.params)?,
            history: recorder.input("history", &lists.history)?,
            bias_ids: recorder.input("bias_ids", &lists.bias_ids)?,
            bias_values: recorder.input("bias_values", &lists.bias_values)?,
            masks: recorder.input::<u32>("masks", &[])?,
            mask_words: 0,
            out: drawn.out.clone(),
            top_ids: drawn.top.0.clone(),
            top_logprobs: drawn.top.1.clone(),
            rows,
            vocab,
        };
        recorder.record(&sample)?;
        Ok(drawn)
    }

    fn read(&self, step: &Step, draws: &[Draw<'_>]) -> Result<Vec<Token>> {
        let drawn = step.read::<SampleOut>(&self.out)?;
        let mut tokens: Vec<Token> = drawn
            .iter()
            .map(|SampleOut { token, logprob }| Token { id: *token, logprob: *logprob, top: Vec::new() })
            .collect();
        if draws.iter().any(|draw| draw.sampling.top_logprobs > 0) {
            let (ids, logprobs) = (step.read::<u32>(&self.top.0)?, step.read::<f32>(&self.top.1)?);
            let rows = ids.chunks_exact(MAX_LOGPROBS).zip(logprobs.chunks_exact(MAX_LOGPROBS));
            for ((token, draw), (ids, logprobs)) in tokens.iter_mut().zip(draws).zip(rows) {
                let top = ids.iter().copied().zip(logprobs.iter().copied());
                // A vocabulary may have fewer tokens than were asked for: the rest of a row is no token.
                let wanted = draw.sampling.top_logprobs as usize;
                token.top = top.take(wanted).filter(|(id, _)| *id != u32::MAX).collect();
            }
        }
        Ok(tokens)
    }
}

/// What the sampler reads beside the logits.
#[derive(Debug, Default)]
struct Lists {
    params: Vec<RowParams>,
    history: Vec<u32>,
    bias_ids: Vec<u32>,
    bias_values: Vec<f32>,
}

impl Lists {
    fn new(draws: &[Draw<'_>]) -> Self {
        let mut lists = Self::default();
        draws.iter().for_each(|draw| lists.push(draw));
        lists
    }

    fn push(&mut self, draw: &Draw<'_>) {
        let Draw { sampling, prompt, generated, .. } = draw;
        let mut params = RowParams {
            seed: draw.seed,
            step: generated.len() as u32,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            bias_start: self.bias_ids.len() as u32,
            bias_len: sampling.logit_bias.len() as u32,
            logprobs: sampling.top_logprobs,
            ..RowParams::default()
        };
        let penalises = sampling.repetition_penalty != 1.0
            || sampling.presence_penalty != 0.0
            || sampling.frequency_penalty != 0.0;
        if penalises {
            params.history_start = self.history.len() as u32;
            params.history_len = (prompt.len() + generated.len()) as u32;
            params.prompt_len = prompt.len() as u32;
            self.history.extend_from_slice(prompt);
            self.history.extend_from_slice(generated);
        }
        self.params.push(params);
        self.bias_ids.extend(sampling.logit_bias.iter().map(|(id, _)| *id));
        self.bias_values.extend(sampling.logit_bias.iter().map(|(_, value)| *value));
    }
}

/// A model's error as the engine's.
pub(crate) fn model_error(name: &str, error: ModelError) -> EngineError {
    match error {
        ModelError::Device(error) => EngineError::Device(error),
        ModelError::Weights(error) => EngineError::Weights(error),
        error => EngineError::Model { name: name.to_owned(), reason: error.to_string() },
    }
}
