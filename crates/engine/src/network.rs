//! A step on the device: the network records the rows, the sampler draws from their logits, and only tokens come back
//! (and the logits of evaluated rows, which were asked for).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::Slice;
use bessemer_kernels::sampling::{MAX_LOGPROBS, RowParams, Sample, SampleOut};
use bessemer_model::{BatchLayout, KvCache, Model, ModelError};
use bessemer_runtime::{Field, PlacedData, Recorder, Recording, Runtime, Step, StepData};

use crate::batch::{Draw, StepInput};
use crate::worker::{Forward, StepOutput};
use crate::{EngineError, Result, Token};

/// How long a step may take before it counts as failed. A large prompt on a small machine takes minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(1800);

/// Steps of at most so many rows keep their recording: steps of decoding come again, prompts hardly do, and their
/// transient memory is large.
const KEPT_ROWS: usize = 64;

/// Recordings kept at most, and bytes of transient memory that they hold; those used least recently go.
const KEPT: usize = 32;
const KEPT_BYTES: u64 = 256 << 20;

/// A model with its KV cache on a device.
#[derive(Debug)]
pub(crate) struct Network {
    runtime: Arc<Runtime>,
    model: Model,
    kv: KvCache,
    name: String,
    /// Most recently used last.
    recorded: Vec<(Shape, Recorded)>,
}

/// Everything that a recording depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    wanted: usize,
    draws: usize,
    blocks_per_seq: usize,
    layout: Vec<Range<u64>>,
}

/// A recorded step and where its results come out.
#[derive(Clone, Debug)]
struct Recorded {
    recording: Arc<Recording>,
    /// f32 `[draws + evaluated, vocab]`.
    logits: Slice,
    drawn: Option<Drawn>,
}

impl Network {
    /// `name` is what messages call the model.
    pub(crate) fn new(runtime: Arc<Runtime>, model: Model, kv: KvCache, name: String) -> Self {
        Self { runtime, model, kv, name, recorded: Vec::new() }
    }

    /// The recording of a step of this shape, with its data written: the one of an earlier step, or a new one.
    fn recorded(&mut self, step: &StepInput<'_>) -> Result<Recorded> {
        let mut data = StepData::default();
        let batch = step.batch.lay_out(&mut data).map_err(|error| model_error(&self.name, error))?;
        let lists = ListLayout::new(&step.draws, &mut data);
        let shape = Shape {
            rows: step.batch.input_ids.len(),
            wanted: step.batch.logit_rows.len(),
            draws: step.draws.len(),
            blocks_per_seq: step.batch.blocks_per_seq,
            layout: data.layout().to_vec(),
        };
        if let Some(at) = self.recorded.iter().position(|(known, _)| *known == shape) {
            let found = self.recorded.remove(at);
            found.1.recording.write(&self.runtime, &data)?;
            let recorded = found.1.clone();
            self.recorded.push(found);
            return Ok(recorded);
        }
        let recorded = self.record(&data, &batch, lists, &shape)?;
        if shape.rows <= KEPT_ROWS && self.runtime.device().info().limits.resubmit {
            self.recorded.push((shape, recorded.clone()));
            let bytes =
                |kept: &[(Shape, Recorded)]| kept.iter().map(|(_, r)| r.recording.bytes()).sum::<u64>();
            while self.recorded.len() > KEPT || bytes(&self.recorded) > KEPT_BYTES {
                self.recorded.remove(0);
            }
        }
        Ok(recorded)
    }

    fn record(
        &self,
        data: &StepData,
        batch: &BatchLayout,
        lists: ListLayout,
        shape: &Shape,
    ) -> Result<Recorded> {
        let error = |error| model_error(&self.name, error);
        let vocab = self.model.config().vocab_size;
        let mut recorder = self.runtime.recorder("step")?;
        let placed = recorder.place(data)?;
        let batch = batch.on(&placed).map_err(error)?;
        let logits = self.model.encode(&batch, &self.kv, &mut recorder).map_err(error)?; // [draws + evaluated, vocab]
        let drawn = match shape.draws {
            0 => None,
            draws => {
                let rows = logits.slice(0, (draws * vocab * size_of::<f32>()) as u64)?;
                Some(Drawn::record(&mut recorder, lists, &placed, rows, (draws, vocab))?)
            }
        };
        Ok(Recorded { recording: Arc::new(recorder.finish()?), logits, drawn })
    }

    fn run(&mut self, step: &StepInput<'_>) -> Result<StepOutput> {
        let Recorded { recording, logits, drawn } = self.recorded(step)?;
        let done = self.runtime.submit(&recording)?;
        done.wait(STEP_TIMEOUT)?;
        self.runtime.tell_profile(&done);
        let tokens = drawn.map_or(Ok(Vec::new()), |drawn| drawn.read(&done, &step.draws))?;
        let row_bytes = (self.model.config().vocab_size * size_of::<f32>()) as u64;
        let logits = match step.evaluated.len() as u64 {
            0 => Vec::new(),
            evaluated => {
                done.read(&logits.slice(step.draws.len() as u64 * row_bytes, evaluated * row_bytes)?)?
            }
        };
        Ok(StepOutput { tokens, logits })
    }
}

impl Forward for Network {
    fn forward(&mut self, step: &StepInput<'_>) -> Result<StepOutput> {
        let outcome = self.run(step);
        if outcome.is_err() {
            // A step that timed out may still be running: what is recorded over the same memory must not run beside it.
            self.recorded.clear();
        }
        outcome
    }
}

/// Where a step's draws come out.
#[derive(Clone, Debug)]
struct Drawn {
    out: Slice,
    /// `[draws, MAX_LOGPROBS]` each.
    top: (Slice, Slice),
}

impl Drawn {
    fn record(
        recorder: &mut Recorder<'_>,
        lists: ListLayout,
        placed: &PlacedData,
        logits: Slice,
        (rows, vocab): (usize, usize),
    ) -> Result<Self> {
        let top_bytes = rows * MAX_LOGPROBS * size_of::<u32>();
        let drawn = Self {
            out: recorder.transient("drawn", rows * size_of::<SampleOut>())?,
            top: (recorder.transient("top_ids", top_bytes)?, recorder.transient("top_logprobs", top_bytes)?),
        };
        let sample = Sample {
            logits,
            params: placed.slice(lists.params)?,
            history: placed.slice(lists.history)?,
            bias_ids: placed.slice(lists.bias_ids)?,
            bias_values: placed.slice(lists.bias_values)?,
            masks: placed.slice(lists.masks)?,
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

/// Where the sampler's lists lie in the data of a step.
#[derive(Clone, Copy, Debug)]
struct ListLayout {
    params: Field,
    history: Field,
    bias_ids: Field,
    bias_values: Field,
    masks: Field,
}

impl ListLayout {
    fn new(draws: &[Draw<'_>], data: &mut StepData) -> Self {
        let lists = Lists::new(draws);
        // A history grows by a token a step: room by powers of two keeps the layout for many steps.
        let room = |list: usize| if list == 0 { 0 } else { list.next_power_of_two() };
        Self {
            params: data.push(&lists.params, lists.params.len()),
            history: data.push(&lists.history, room(lists.history.len())),
            bias_ids: data.push(&lists.bias_ids, room(lists.bias_ids.len())),
            bias_values: data.push(&lists.bias_values, room(lists.bias_values.len())),
            masks: data.push::<u32>(&[], 0),
        }
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
