//! Steps on the device: the network records the rows, the sampler draws from their logits, and only tokens come back
//! (and the logits of evaluated rows, which were asked for).
//!
//! With the command ring on, two steps may be under way. They take turns with two places for what they draw ([`Network::places`]): a step reads the
//! tokens that the host does not know yet from the place of the step before it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::{DeviceError, Slice};
use bessemer_kernels::sampling::{MAX_LOGPROBS, Sample, SampleOut};
use bessemer_model::{BatchLayout, KvCache, Model, ModelError};
use bessemer_runtime::{
    Download, Feature, Optimizations, PlacedData, Recorder, Recording, Runtime, Step, StepData,
};
use bytemuck::{AnyBitPattern, NoUninit};

use crate::batch::StepInput;
use crate::draw_lists::ListLayout;
use crate::forward::{Forward, StepOutput};
use crate::{EngineError, Result, Token};

/// How long a step may take before it counts as failed. A large prompt on a small machine takes minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(1800);

/// Steps of at most so many rows keep their recording: steps of decoding come again, prompts hardly do, and their
/// transient memory is large.
const KEPT_ROWS: usize = 64;

/// Recordings kept at most, and bytes of transient memory that they hold; those used least recently go.
const KEPT: usize = 64;
const KEPT_BYTES: u64 = 512 << 20;

/// A model with its KV cache on a device.
#[derive(Debug)]
pub(crate) struct Network {
    runtime: Arc<Runtime>,
    model: Model,
    kv: KvCache,
    name: String,
    /// [`SampleOut`] `[draws at most]` each: what the steps under way draw, in turn.
    places: [Slice; 2],
    /// The place of the next step.
    next: usize,
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
    /// Most recently used last.
    recorded: Vec<(Shape, Arc<Recording>, Outputs)>,
    /// That of the last step, for its memory.
    data: StepData,
}

/// A step that was submitted.
#[derive(Debug)]
struct UnderWay {
    step: Step,
    outputs: Outputs,
    /// What was drawn, on its way.
    drawn: Option<Download>,
    /// Alternatives wanted with each draw.
    top_logprobs: Vec<u32>,
    evaluated: usize,
}

/// Everything that a recording depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    /// Where it puts what it draws.
    place: usize,
    /// Whether it takes tokens from the step before it.
    fed: bool,
    rows: usize,
    wanted: usize,
    draws: usize,
    blocks_per_seq: usize,
    layout: Vec<Range<u64>>,
}

/// Where a step's results come out.
#[derive(Clone, Debug)]
struct Outputs {
    /// f32 `[draws + evaluated, vocab]`.
    logits: Slice,
    drawn: Option<Drawn>,
}

impl Network {
    /// `name` is what messages call the model; a step has at most `draws` draws.
    ///
    /// # Errors
    /// When the device has no memory for what is drawn.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        model: Model,
        kv: KvCache,
        name: String,
        draws: usize,
    ) -> Result<Self> {
        let bytes = (draws.max(1) * size_of::<SampleOut>()) as u64;
        let places = [runtime.allocate("drawn", bytes)?, runtime.allocate("drawn", bytes)?];
        let (under_way, recorded, data) = (VecDeque::new(), Vec::new(), StepData::default());
        Ok(Self { runtime, model, kv, name, places, next: 0, under_way, recorded, data })
    }

    /// Submits a step: the recording of an earlier one of this shape with new data, or a new one.
    fn submit(&mut self, step: &StepInput<'_>) -> Result<(Step, Outputs)> {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        let outcome = self.submit_with(step, &mut data);
        self.data = data;
        outcome
    }

    fn submit_with(&mut self, step: &StepInput<'_>, data: &mut StepData) -> Result<(Step, Outputs)> {
        let batch = step.batch.lay_out(data).map_err(|error| model_error(&self.name, error))?;
        let lists = ListLayout::new(step, data);
        let shape = Shape {
            place: self.next,
            fed: !step.fed.is_empty(),
            rows: step.batch.input_ids.len(),
            wanted: step.batch.logit_rows.len(),
            draws: step.draws.len(),
            blocks_per_seq: step.batch.blocks_per_seq,
            layout: data.layout().to_vec(),
        };
        let keeps = self.keeps();
        if !keeps {
            self.recorded.clear();
        }
        if !keeps || shape.rows > KEPT_ROWS {
            let mut recorder = self.runtime.committing_recorder("step")?;
            let outputs = self.record(&mut recorder, data, &batch, lists, &shape)?;
            return Ok((recorder.submit()?, outputs));
        }
        let (recording, outputs) = match self.recorded.iter().position(|(known, ..)| *known == shape) {
            Some(at) => {
                let found = self.recorded.remove(at);
                found.1.write(&self.runtime, data)?;
                let kept = (found.1.clone(), found.2.clone());
                self.recorded.push(found);
                kept
            }
            None => {
                let mut recorder = self.runtime.recorder("step")?;
                let outputs = self.record(&mut recorder, data, &batch, lists, &shape)?;
                let recording = Arc::new(recorder.finish()?);
                self.recorded.push((shape, recording.clone(), outputs.clone()));
                let bytes = |kept: &[(Shape, Arc<Recording>, Outputs)]| {
                    kept.iter().map(|(_, recording, _)| recording.bytes()).sum::<u64>()
                };
                while self.recorded.len() > KEPT || bytes(&self.recorded) > KEPT_BYTES {
                    self.recorded.remove(0);
                }
                (recording, outputs)
            }
        };
        Ok((self.runtime.submit(&recording)?, outputs))
    }

    /// Whether recordings are kept: where the device can run them again, with the ring on, and with the pool on, since
    /// without it a step's memory goes with the step.
    fn keeps(&self) -> bool {
        self.runtime.device().info().limits.resubmit
            && self.runtime.is_active(Feature::CommandBufferRing)
            && self.runtime.is_active(Feature::MemoryPool)
    }

    fn record(
        &self,
        recorder: &mut Recorder<'_>,
        data: &StepData,
        batch: &BatchLayout,
        lists: ListLayout,
        shape: &Shape,
    ) -> Result<Outputs> {
        let error = |error| model_error(&self.name, error);
        let vocab = self.model.config().vocab_size;
        let placed = recorder.place(data)?;
        let batch = batch.on(&placed).map_err(error)?;
        if let Some(feeding) = &lists.feeding {
            let before = &self.places[1 - shape.place];
            recorder.record(&feeding.rows.on(&placed, before, batch.input_ids().clone(), shape.rows)?)?;
            if let Some(newest) = &feeding.history {
                recorder.record(&newest.on(&placed, before, placed.slice(lists.history)?, shape.draws)?)?;
            }
        }
        let logits = self.model.encode(&batch, &self.kv, recorder).map_err(error)?; // [draws + evaluated, vocab]
        let drawn = match shape.draws {
            0 => None,
            draws => {
                let rows = logits.slice(0, (draws * vocab * size_of::<f32>()) as u64)?;
                let out = self.places[shape.place].slice(0, (draws * size_of::<SampleOut>()) as u64)?;
                Some(Drawn::record(recorder, lists, &placed, rows, out, (draws, vocab))?)
            }
        };
        Ok(Outputs { logits, drawn })
    }

    /// `alone`: no step is behind it.
    fn read(&self, done: UnderWay, alone: bool) -> Result<StepOutput> {
        let UnderWay { step, outputs, drawn, top_logprobs, evaluated } = done;
        self.runtime.wait(&step, STEP_TIMEOUT, alone)?;
        let tokens = match &outputs.drawn {
            Some(out) => out.read(&self.runtime, drawn, &top_logprobs)?,
            None => Vec::new(),
        };
        let row_bytes = (self.model.config().vocab_size * size_of::<f32>()) as u64;
        let logits = match evaluated as u64 {
            0 => Vec::new(),
            evaluated => {
                let start = top_logprobs.len() as u64 * row_bytes;
                read(&self.runtime, &outputs.logits.slice(start, evaluated * row_bytes)?, None)?
            }
        };
        Ok(StepOutput { tokens, logits })
    }
}

/// The elements of a result of a completed step.
fn read<T: AnyBitPattern + NoUninit>(
    runtime: &Runtime,
    slice: &Slice,
    ahead: Option<Download>,
) -> Result<Vec<T>> {
    let bytes = runtime.bytes(slice, ahead)?;
    let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    let whole = elements.len() * size_of::<T>();
    bytemuck::cast_slice_mut(&mut elements).copy_from_slice(&bytes[..whole]);
    Ok(elements)
}

impl Forward for Network {
    fn start(&mut self, input: &StepInput<'_>) -> Result<()> {
        let (step, outputs) = self.submit(input)?;
        self.next = 1 - self.next;
        let drawn = outputs.drawn.as_ref().and_then(|drawn| self.runtime.download_ahead(&step, &drawn.out));
        let top_logprobs = input.draws.iter().map(|draw| draw.sampling.top_logprobs).collect();
        let evaluated = input.evaluated.len();
        self.under_way.push_back(UnderWay { step, outputs, drawn, top_logprobs, evaluated });
        Ok(())
    }

    fn finish(&mut self) -> Result<StepOutput> {
        let Some(done) = self.under_way.pop_front() else {
            return Err(EngineError::Step { reason: "no step is under way".into() });
        };
        let outcome = self.read(done, self.under_way.is_empty());
        if outcome.is_err() {
            // A step that timed out may still be running: what is recorded over the same memory must not run beside it.
            self.recorded.clear();
        }
        outcome
    }

    fn depth(&self) -> usize {
        if self.runtime.is_active(Feature::CommandBufferRing) { 2 } else { 1 }
    }

    fn fall_back(&mut self, error: &EngineError) -> bool {
        // Recordings hold memory of the pool, and may be what failed.
        self.recorded.clear();
        let EngineError::Device(error) = error else { return false };
        let suspects: &[Feature] = match error {
            DeviceError::Lost(_) | DeviceError::Unavailable(_) => &[],
            DeviceError::OutOfMemory { .. } => &[Feature::MemoryPool],
            _ => &Feature::ALL,
        };
        suspects.iter().rev().any(|feature| self.runtime.fall_back(*feature, error))
    }

    fn account_cached(&mut self, blocks: usize) {
        self.kv.account_cached(blocks);
    }

    fn configure(&mut self, settings: Optimizations) -> Result<()> {
        self.recorded.clear();
        Ok(self.runtime.apply(settings)?)
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
        out: Slice,
        (rows, vocab): (usize, usize),
    ) -> Result<Self> {
        let top_bytes = rows * MAX_LOGPROBS * size_of::<u32>();
        let drawn = Self {
            out,
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

    /// `wanted`: for each draw, the alternatives that were asked for.
    fn read(&self, runtime: &Runtime, ahead: Option<Download>, wanted: &[u32]) -> Result<Vec<Token>> {
        let drawn = read::<SampleOut>(runtime, &self.out, ahead)?;
        let mut tokens: Vec<Token> = drawn
            .iter()
            .map(|SampleOut { token, logprob }| Token { id: *token, logprob: *logprob, top: Vec::new() })
            .collect();
        if wanted.iter().any(|wanted| *wanted > 0) {
            let ids = read::<u32>(runtime, &self.top.0, None)?;
            let logprobs = read::<f32>(runtime, &self.top.1, None)?;
            let rows = ids.chunks_exact(MAX_LOGPROBS).zip(logprobs.chunks_exact(MAX_LOGPROBS));
            for ((token, wanted), (ids, logprobs)) in tokens.iter_mut().zip(wanted).zip(rows) {
                let top = ids.iter().copied().zip(logprobs.iter().copied());
                // A vocabulary may have fewer tokens than were asked for: the rest of a row is no token.
                token.top = top.take(*wanted as usize).filter(|(id, _)| *id != u32::MAX).collect();
            }
        }
        Ok(tokens)
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
