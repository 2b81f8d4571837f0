//! The handle: the only door to the thread that runs the model.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bessemer_runtime::{Feature, OptimizationStats, OptimizationTimes, Optimizations, Runtime};
use bessemer_text::{ChatTemplate, Detokenizer, Tokenizer};

use crate::command::{Command, Evaluate, Generate};
use crate::forward::Forward;
use crate::gate::Gate;
use crate::reply_stream::reply_channel;
use crate::scheduler::Scheduler;
use crate::self_check::SelfCheck;
use crate::serving::ServingMeter;
use crate::stop::StopRules;
use crate::text_request::check_stops;
use crate::validate::Bounds;
use crate::worker::{Shared, Worker};
use crate::{
    EngineError, EngineInfo, EngineStats, GenerationDefaults, ReplyStream, Request, Result,
    ServingStatistics, TextRequest, TextStream,
};

/// A loaded model, ready to answer. Clones share it.
///
/// One thread owns the model and every sequence; the handle talks to it through a bounded channel and never waits for
/// it. When the last clone is dropped and no request is inside, the thread ends before the drop returns, so that no
/// device is taken down while the process exits; else it finishes the requests whose streams still live, and ends.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    commands: SyncSender<Command>,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    serving: Arc<ServingMeter>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What an engine knows beside its thread.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) info: EngineInfo,
    pub(crate) defaults: GenerationDefaults,
    pub(crate) bounds: Bounds,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) chat_template: Option<ChatTemplate>,
    /// What the model runs on; tests do without.
    pub(crate) runtime: Option<Arc<Runtime>>,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(
        parts: Parts,
        forward: Box<dyn Forward>,
        scheduler: Scheduler,
        check: Option<SelfCheck>,
    ) -> Result<Self> {
        let limit = parts.info.max_sequences + parts.info.max_queue;
        // Room for every request that the gate lets in, for a wake-up and for other settings.
        let (commands, receiver) = sync_channel(limit + 2);
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(receiver, shared.clone(), forward, parts.bounds.vocab, scheduler, check);
        let thread =
            std::thread::Builder::new()
                .name("bessemer-engine".into())
                .spawn(move || worker.run())
                .map_err(|error| EngineError::Stopped { reason: format!("it cannot be started: {error}") })?;
        let thread = Mutex::new(Some(thread));
        let (gate, serving) = (Gate::new(limit), ServingMeter::new(parts.runtime.clone()));
        Ok(Self(Arc::new(Inner { parts, commands, gate, shared, serving, thread })))
    }

    /// What was loaded.
    pub fn info(&self) -> &EngineInfo {
        &self.0.parts.info
    }

    /// The model's tokenizer; `None` for a model without one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.0.parts.tokenizer.as_ref()
    }

    /// The model's chat template; `None` for a model without one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.0.parts.chat_template.as_ref()
    }

    /// What the model's files say about generation.
    pub fn generation_defaults(&self) -> &GenerationDefaults {
        &self.0.parts.defaults
    }

    /// Queues a request. Never blocks.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a value out of range or a prompt that leaves no room in the context,
    /// [`EngineError::Busy`] when `max_sequences` + `max_queue` requests are inside, [`EngineError::ShuttingDown`] after
    /// [`Engine::drain`] or [`Engine::shutdown`], [`EngineError::DeviceLost`] once the device is gone.
    pub fn submit(&self, request: Request) -> Result<ReplyStream> {
        let parts = &self.0.parts;
        let meter = self.0.serving.request(request.prompt.len());
        self.health()?;
        parts.bounds.check(&request)?;
        let rules = StopRules::new(&request, &parts.defaults.end_tokens, parts.bounds.context);
        let ticket = self.0.gate.enter()?;
        let (outlet, stream) = reply_channel(rules.max_tokens, ticket, meter);
        let Request { prompt, sampling, cache_salt, .. } = request;
        let salt = cache_salt.unwrap_or_default().into();
        let seed = sampling.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        self.send(Command::Generate(Generate { prompt, sampling, seed, rules, salt, outlet }))?;
        Ok(stream)
    }

    /// Tokenizes and queues a request. Never blocks on the engine.
    ///
    /// # Errors
    /// As [`Engine::submit`]; [`EngineError::Invalid`] too for a model without a tokenizer, and for messages that the
    /// chat template refuses.
    pub fn generate_text(&self, request: TextRequest) -> Result<TextStream> {
        let Some(tokenizer) = self.tokenizer() else {
            let cure = "Submit token ids, or put a tokenizer.json into the model's folder";
            return Err(EngineError::invalid("prompt", "text needs a model with a tokenizer", "text", cure));
        };
        check_stops(&request.stop)?;
        let prompt = request.prompt.tokenize(tokenizer, self.chat_template())?;
        let prompt_tokens = prompt.len();
        let TextRequest { sampling, max_tokens, stop, stop_tokens, ignore_end, cache_salt, specials, .. } =
            request;
        let replies =
            self.submit(Request { prompt, sampling, max_tokens, stop_tokens, ignore_end, cache_salt })?;
        let detokenizer = Detokenizer::with_specials(tokenizer.clone(), specials);
        Ok(TextStream::new(replies, detokenizer, stop, prompt_tokens))
    }

    /// The logits after each of `ids`, f32 `[ids.len(), vocab]`, through the same network, KV blocks and steps as every
    /// other request. Blocks until they are there; the caller holds all of them in memory.
    ///
    /// # Errors
    /// As [`Engine::submit`], and whatever failed a step.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.health()?;
        self.0.parts.bounds.check_prompt("ids", ids, 0)?;
        let ticket = self.0.gate.enter()?;
        let (reply, result) = sync_channel(1);
        self.send(Command::Evaluate(Evaluate { ids: ids.to_vec(), reply, ticket }))?;
        result.recv().unwrap_or(Err(EngineError::ShuttingDown))
    }

    /// Whether requests can be served at all, now and later.
    ///
    /// # Errors
    /// [`EngineError::DeviceLost`] once the device is gone: every request ends so from then on.
    pub fn health(&self) -> Result<()> {
        self.0.shared.lost.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// What the engine is doing and has done, as of the last step.
    pub fn stats(&self) -> EngineStats {
        let mut stats = *self.0.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.waiting = self.0.gate.in_flight().saturating_sub(stats.running);
        stats
    }

    /// Other optimisations from the next step on, with all requests in place; returns when they are in force.
    ///
    /// # Errors
    /// [`EngineError::Device`] for a setting that breaks a rule, or when the device has no memory for it; nothing has
    /// changed then. [`EngineError::Busy`] while other settings are on their way. [`EngineError::DeviceLost`].
    pub fn update_optimizations(&self, settings: Optimizations) -> Result<()> {
        let (reply, result) = sync_channel(1);
        self.send(Command::Configure(Box::new(settings), reply))?;
        result.recv().unwrap_or(Err(EngineError::ShuttingDown))
    }

    /// The optimisations in force.
    pub fn optimizations(&self) -> Option<Optimizations> {
        self.0.parts.runtime.as_ref().map(|runtime| runtime.settings())
    }

    /// What the optimisations are, and what they have done. Any time, without waiting.
    pub fn optimization_stats(&self) -> Option<OptimizationStats> {
        self.0.parts.runtime.as_ref().map(|runtime| runtime.optimization_stats())
    }

    /// What requests went through: waits, first tokens, tokens, ends.
    pub fn serving(&self) -> ServingStatistics {
        self.0.serving.statistics()
    }

    /// What the optimisations took, event by event. Any time, without waiting.
    pub fn optimization_times(&self) -> Option<OptimizationTimes> {
        self.0.parts.runtime.as_ref().map(|runtime| runtime.optimization_times())
    }

    /// Arms a feature again that was latched off because it failed; `false` when it was not. It counts from the next step on.
    pub fn rearm(&self, feature: Feature) -> bool {
        self.0.parts.runtime.as_ref().is_some_and(|runtime| runtime.rearm(feature))
    }

    /// Refuses new requests from now on and waits for those inside; `false` when `timeout` passes before all have ended.
    /// They go on all the same.
    pub fn drain(&self, timeout: Duration) -> bool {
        self.0.gate.drain(timeout)
    }

    /// Fails every request inside with [`EngineError::ShuttingDown`] after the step that is running, ends the thread and
    /// gives the model's memory back. The handle refuses everything from now on.
    pub fn shutdown(&self) {
        self.0.gate.close();
        self.0.end_thread();
    }

    fn send(&self, command: Command) -> Result<()> {
        self.0.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => EngineError::Busy {
                in_flight: self.0.gate.in_flight(),
                limit: self.info().max_sequences + self.info().max_queue,
            },
            TrySendError::Disconnected(_) if self.0.shared.stop.load(Ordering::Acquire) => {
                EngineError::ShuttingDown
            }
            TrySendError::Disconnected(_) => EngineError::Stopped { reason: "it has panicked".into() },
        })
    }
}

impl Inner {
    /// Ends the thread after the step that is running.
    fn end_thread(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // A full channel means that the thread is awake.
        self.commands.try_send(Command::Wake).ok();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread had ended by a panic");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.gate.in_flight() == 0 {
            self.end_thread();
        }
    }
}
