//! A run, from loading the model to what is left when it is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bessemer_engine::{
    Engine, EngineError, EngineOptions, EngineStats, FinishReason, Master, Optimizations, Reply, Request,
};
use bessemer_hal::Device;

use super::client::{Ending, ask};
use super::disturbance::{Changes, disturb};
use super::mix::{Answer, Manner, Mix};
use super::report::{Progress, Remains, SoakReport};
use super::samples::{Sample, Samples, resident};
use super::tally::Tally;
use super::{Length, Soak, Subject};
use crate::report::{DeviceFacts, Machine};

/// Between two looks at the run.
const LOOK: Duration = Duration::from_millis(10);
/// How long a device may take to give memory back.
const SETTLING: Duration = Duration::from_secs(10);

/// What the threads of a run share.
struct Shared {
    engine: Engine,
    mix: Mix,
    answers: Vec<Answer>,
    next: AtomicU64,
    requests: Option<u64>,
    /// No further request begins.
    closed: AtomicBool,
    tally: Mutex<Tally>,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next request.
    fn draw(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = !self.closed.load(Ordering::Acquire) && self.requests.is_none_or(|most| number < most);
        open.then_some(number)
    }

    /// One owner after the other, until it is over.
    fn serve(&self) {
        while let Some(number) = self.draw() {
            let (which, manner) = self.mix.asked(number);
            let known = self.mix.requests().get(which).zip(self.answers.get(which));
            let Some((request, answer)) = known else { return };
            let (ending, tokens) = ask(&self.engine, request, answer, manner);
            let mut tally = self.tally();
            tally.note(number, ending, tokens);
            if tally.is_hopeless() {
                self.closed.store(true, Ordering::Release);
            }
        }
    }

    /// All requests once more, with nothing failing; what went wrong.
    fn serves_on(&self) -> Option<String> {
        let all = self.mix.requests().iter().zip(&self.answers).enumerate();
        all.into_iter().find_map(|(at, (request, answer))| {
            let (ending, _) = ask(&self.engine, request, answer, Manner::Patient);
            (ending != Ending::Right).then(|| format!("afterwards request {at} ended so: {ending:?}"))
        })
    }
}

pub(super) fn run(
    soak: &Soak,
    device: Arc<dyn Device>,
    options: EngineOptions,
    stop: &AtomicBool,
    told: &mut dyn FnMut(&Progress),
) -> Result<SoakReport, EngineError> {
    let before = device.allocated();
    let subject = Subject::new(soak, device.clone());
    let options = soak.prepare(options, &*device);
    let wanted = options.optimizations.clone();
    let engine = Engine::load_on(subject.device(), options)?;
    let info = engine.info().clone();
    let mix = Mix::new(soak, info.vocab, info.context);
    engine.update_optimizations(Optimizations { enabled: Master::Off, ..wanted.clone() })?;
    let answers = mix.requests().iter().map(|request| answer(&engine, request)).collect::<Result<_, _>>()?;
    let settings = soak.settings(&wanted);
    engine.update_optimizations(settings.clone())?;

    let requests = match soak.length {
        Length::Requests(most) => Some(most),
        Length::Time(_) => None,
    };
    let (next, closed, tally) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
    let shared = Arc::new(Shared { engine, mix, answers, next, requests, closed, tally });
    if let Some((fault, plan)) = subject.fault().zip(soak.plan()) {
        fault.arm(plan);
    }
    let Watched { samples, changes, seconds, stalled } =
        watch(soak, &shared, &subject, &settings, stop, told);
    let mut report = SoakReport {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::look(),
        device: DeviceFacts::of(device.info()),
        model: info,
        soak: soak.clone(),
        seconds,
        interrupted: stop.load(Ordering::Acquire),
        faults: subject.fault().filter(|_| soak.fault_rate.is_some()).map(|fault| fault.statistics().into()),
        switched: changes.switched,
        rearmed: changes.rearmed,
        memory: samples.plateaus(),
        throughput: samples.drift(),
        requests: shared.tally().clone(),
        stats: EngineStats::default(),
        remains: None,
        failures: Vec::new(),
    };
    report.failures.extend(changes.wrong.map(|error| format!("other settings were refused: {error}")));
    if stalled {
        let patience = soak.patience.as_secs();
        report.failures.push(format!("there was neither a token nor an end for {patience} s"));
    } else {
        report.failures.extend(finish(&shared, wanted));
        report.stats = shared.engine.stats();
        report.requests = shared.tally().clone();
        report.remains = Some(remains(shared, subject, &*device, before));
    }
    report.judge();
    Ok(report)
}

/// What a request gives when nothing disturbs it.
fn answer(engine: &Engine, request: &Request) -> Result<Answer, EngineError> {
    let mut stream = engine.submit(request.clone())?;
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(Reply::Token(token)) => tokens.push(token.id),
            Some(Reply::Finished { reason, .. }) => return Ok(Answer { tokens, reason }),
            Some(Reply::Failed(error)) => return Err(error),
            None => return Ok(Answer { tokens, reason: FinishReason::Cancelled }),
        }
    }
}

/// What was seen of a run.
struct Watched {
    samples: Samples,
    changes: Changes,
    seconds: f64,
    stalled: bool,
}

/// Has the owners ask, until the run is over.
fn watch(
    soak: &Soak,
    shared: &Arc<Shared>,
    subject: &Subject,
    settings: &Optimizations,
    stop: &AtomicBool,
    told: &mut dyn FnMut(&Progress),
) -> Watched {
    let start = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let owners: Vec<_> = (0..soak.concurrency.max(1))
        .map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.serve())
        })
        .collect();
    let disturber = {
        let (shared, settings, over) = (shared.clone(), settings.clone(), over.clone());
        let (switches, seed) = (soak.switches, soak.seed);
        std::thread::spawn(move || disturb(&shared.engine, &settings, switches, seed, &over))
    };
    let mut samples = Samples::new();
    let mut progressed = (start, 0);
    let mut stalled = false;
    while !owners.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(LOOK);
        let elapsed = start.elapsed();
        let late = matches!(soak.length, Length::Time(most) if elapsed >= most);
        if late || stop.load(Ordering::Acquire) {
            shared.closed.store(true, Ordering::Release);
        }
        if !samples.is_due(elapsed) {
            continue;
        }
        let moved = shared.engine.stats().generated_tokens + shared.tally().ended;
        if moved != progressed.1 {
            progressed = (Instant::now(), moved);
        }
        stalled = progressed.0.elapsed() > soak.patience;
        if stalled {
            break;
        }
        let Some(sample) = sample(elapsed, shared, subject) else { continue };
        samples.push(elapsed, sample);
        let faults = subject.fault().map_or(0, |fault| fault.statistics().all_faults());
        let (failed, violations) = {
            let tally = shared.tally();
            (tally.all_failed(), tally.violations)
        };
        told(&Progress { sample, faults, failed, violations });
    }
    let seconds = start.elapsed().as_secs_f64();
    over.store(true, Ordering::Release);
    if let Some(fault) = subject.fault() {
        fault.disarm();
    }
    if stalled {
        // Whoever hangs is left alone: waiting would hang, too.
        return Watched { samples, changes: Changes::default(), seconds, stalled };
    }
    let panics = owners.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    let changes = disturber.join();
    let panics = panics + usize::from(changes.is_err());
    for _ in 0..panics {
        shared.tally().violation("a thread of the run panicked".into());
    }
    Watched { samples, changes: changes.unwrap_or_default(), seconds, stalled }
}

/// `None` when the memory pool took or gave back memory in the middle of every look.
fn sample(elapsed: Duration, shared: &Shared, subject: &Subject) -> Option<Sample> {
    let pool = || shared.engine.optimization_stats().map(|stats| (stats.memory_pool, stats.memory));
    let (device, pool, owners) = (0..8).find_map(|_| {
        let (before, _) = pool()?;
        let device = subject.device().allocated();
        let (after, owners) = pool()?;
        (before.bytes_reserved == after.bytes_reserved).then_some((device, after, owners))
    })?;
    Some(Sample {
        seconds: elapsed.as_secs_f64(),
        requests: shared.tally().ended,
        tokens: shared.engine.stats().generated_tokens,
        resident: resident(),
        device,
        pool: pool.bytes_reserved,
        buffers: pool.bytes_in_use,
        owners,
    })
}

/// After the run, with nothing failing any more.
fn finish(shared: &Shared, settings: Optimizations) -> Option<String> {
    if let Err(error) = shared.engine.update_optimizations(settings) {
        return Some(format!("afterwards the settings of before were refused: {error}"));
    }
    let wrong = shared.serves_on();
    if !shared.engine.drain(SETTLING) {
        return Some("afterwards requests are inside that nobody has asked for".into());
    }
    wrong
}

/// Ends the engine, and looks for what it has left.
fn remains(shared: Arc<Shared>, subject: Subject, device: &dyn Device, before: u64) -> Remains {
    let stats = shared.engine.stats();
    shared.engine.shutdown();
    let optimizations = shared.engine.optimization_stats();
    drop((shared, subject));
    let begin = Instant::now();
    while device.allocated() > before && begin.elapsed() < SETTLING {
        std::thread::sleep(LOOK);
    }
    let pool = optimizations.map(|stats| stats.memory_pool).unwrap_or_default();
    Remains {
        pool_acquired: pool.total_acquired,
        pool_released: pool.total_released,
        pool_live: pool.live,
        kv_blocks: stats.kv_blocks_used,
        requests: stats.requests.saturating_sub(stats.finished + stats.cancelled + stats.failed),
        device_bytes: device.allocated().saturating_sub(before),
    }
}
