//! Steps on the device: the network records the rows, the sampler draws from their logits, and only tokens come back
//! (and the logits of evaluated rows, which were asked for).
//!
//! Two steps may be under way. They take turns with two places for what they draw ([`Network::places`]): a step reads the
//! tokens that the host does not know yet from the place of the step before it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bessemer_hal::Slice;
use bessemer_kernels::sampling::{MAX_LOGPROBS, Sample, SampleOut};
use bessemer_model::{BatchLayout, KvCache, Model, ModelError};
use bessemer_runtime::{PlacedData, Recorder, Recording, Runtime, Step, StepData};

use crate::batch::StepInput;
use crate::draw_lists::ListLayout;
use crate::worker::{Forward, StepOutput};
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
    recorded: Vec<(Shape, Recorded)>,
}

/// A step that was submitted.
#[derive(Debug)]
struct UnderWay {
    step: Step,
    recorded: Recorded,
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

/// A recorded step and where its results come out.
#[derive(Clone, Debug)]
struct Recorded {
    recording: Arc<Recording>,
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
        let under_way = VecDeque::new();
        Ok(Self { runtime, model, kv, name, places, next: 0, under_way, recorded: Vec::new() })
    }

    /// The recording of a step of this shape, with its data written: the one of an earlier step, or a new one.
    fn recorded(&mut self, step: &StepInput<'_>) -> Result<Recorded> {
        let mut data = StepData::default();
        let batch = step.batch.lay_out(&mut data).map_err(|error| model_error(&self.name, error))?;
        let lists = ListLayout::new(step, &mut data);
        let shape = Shape {
            place: self.next,
            fed: !step.fed.is_empty(),
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
        if let Some(feeding) = &lists.feeding {
            let before = &self.places[1 - shape.place];
            recorder.record(&feeding.rows.on(&placed, before, batch.input_ids().clone(), shape.rows)?)?;
            if let Some(newest) = &feeding.history {
                recorder.record(&newest.on(&placed, before, placed.slice(lists.history)?, shape.draws)?)?;
            }
        }
        let logits = self.model.encode(&batch, &self.kv, &mut recorder).map_err(error)?; // [draws + evaluated, vocab]
        let drawn = match shape.draws {
            0 => None,
            draws => {
                let rows = logits.slice(0, (draws * vocab * size_of::<f32>()) as u64)?;
                let out = self.places[shape.place].slice(0, (draws * size_of::<SampleOut>()) as u64)?;
                Some(Drawn::record(&mut recorder, lists, &placed, rows, out, (draws, vocab))?)
            }
        };
        Ok(Recorded { recording: Arc::new(recorder.finish()?), logits, drawn })
    }

    fn read(&self, done: &UnderWay) -> Result<StepOutput> {
        let UnderWay { step, recorded, top_logprobs, evaluated } = done;
        step.wait(STEP_TIMEOUT)?;
        self.runtime.tell_profile(step);
        let tokens =
            recorded.drawn.as_ref().map_or(Ok(Vec::new()), |drawn| drawn.read(step, top_logprobs))?;
        let row_bytes = (self.model.config().vocab_size * size_of::<f32>()) as u64;
        let logits = match *evaluated as u64 {
            0 => Vec::new(),
            evaluated => step.read(
                &recorded.logits.slice(top_logprobs.len() as u64 * row_bytes, evaluated * row_bytes)?,
            )?,
        };
        Ok(StepOutput { tokens, logits })
    }
}

impl Forward for Network {
    fn start(&mut self, input: &StepInput<'_>) -> Result<()> {
        let recorded = self.recorded(input)?;
        let step = self.runtime.submit(&recorded.recording)?;
        self.next = 1 - self.next;
        let top_logprobs = input.draws.iter().map(|draw| draw.sampling.top_logprobs).collect();
        let evaluated = input.evaluated.len();
        self.under_way.push_back(UnderWay { step, recorded, top_logprobs, evaluated });
        Ok(())
    }

    fn finish(&mut self) -> Result<StepOutput> {
        let Some(done) = self.under_way.pop_front() else {
            return Err(EngineError::Step { reason: "no step is under way".into() });
        };
        let outcome = self.read(&done);
        if outcome.is_err() {
            // A step that timed out may still be running: what is recorded over the same memory must not run beside it.
            self.recorded.clear();
        }
        outcome
    }

    fn depth(&self) -> usize {
        2
    }

    fn fall_back(&mut self, _: &EngineError) -> bool {
        false
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
    fn read(&self, step: &Step, wanted: &[u32]) -> Result<Vec<Token>> {
        let drawn = step.read::<SampleOut>(&self.out)?;
        let mut tokens: Vec<Token> = drawn
            .iter()
            .map(|SampleOut { token, logprob }| Token { id: *token, logprob: *logprob, top: Vec::new() })
            .collect();
        if wanted.iter().any(|wanted| *wanted > 0) {
            let (ids, logprobs) = (step.read::<u32>(&self.top.0)?, step.read::<f32>(&self.top.1)?);
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
