//! Submissions, and what is done to those that meet a fault.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::INJECTED;
use super::clock::{Gate, Turn};
use super::core::UnderWay;
use super::device::FaultDevice;
use super::draws::Draws;
use super::encoder::{FaultCommands, Transfer};
use super::event::FaultEvent;
use super::plan::{Call, Fault};
use super::schedule::Injection;
use super::submission::FaultSubmission;
use crate::monitor::lock;
use crate::{BufferDesc, CommandBuffer, DeviceError, Event, QueueKind, Result, Submission, Submit};

/// Bytes of noise over a copy's destination: enough that they differ from what was there, where that many fit.
const NOISE: std::ops::RangeInclusive<u64> = 8..=16;

/// What is done to a submission.
enum Detour {
    /// It also waits for an event to come to 1, which has failed already, or is raised at a time.
    Held(Event, Option<Instant>),
    /// Other commands run in its place.
    Replaced(CommandBuffer),
    /// Other commands follow and signal in its place, and an event fails them once it has ended.
    Followed(CommandBuffer, (Event, DeviceError)),
}

/// A submission as the device inside takes it.
#[derive(Clone)]
struct Inside<'a> {
    queue: QueueKind,
    commands: &'a CommandBuffer,
    wait: Vec<(Event, u64)>,
    signal: Vec<(Event, u64)>,
}

/// A submission that the device inside has taken.
struct Taken {
    /// The commands, where others follow.
    first: Option<Submission>,
    last: Submission,
    /// What it waits for beside the caller's events.
    wait: Vec<(Event, u64)>,
}

impl FaultDevice {
    pub(super) fn submit_with_faults(&self, queue: QueueKind, submit: Submit<'_>) -> Result<Submission> {
        let own = FaultCommands::of(submit.commands);
        let copies = own.map_or(&[][..], |commands| &commands.copies);
        let signal: Vec<_> = submit
            .signal
            .iter()
            .filter_map(|(event, value)| Some((FaultEvent::of(event, &self.core)?, *value)))
            .collect();
        // A second submission that is refused for an event of another device would come too late.
        let all_own = signal.len() == submit.signal.len();
        let can = |fault| match fault {
            Fault::TransferCorruption => copies.iter().any(|command| command.target().is_some()),
            Fault::FailureAfter => all_own,
            _ => true,
        };
        let call = match queue {
            QueueKind::Compute => Call::SubmitCompute,
            QueueKind::Transfer => Call::SubmitTransfer,
        };
        let injection = self.core.meet(call, can)?;
        let detour = injection.map(|injection| {
            let fault = injection.fault;
            self.detour(injection, submit.commands.label(), copies).map(|detour| (fault, detour))
        });
        let inside = |event: &Event| {
            FaultEvent::of(event, &self.core).map_or_else(|| event.clone(), |event| event.inner.clone())
        };
        let inside =
            |events: &[(Event, u64)]| events.iter().map(|(e, v)| (inside(e), *v)).collect::<Vec<_>>();
        let inside = Inside {
            queue,
            commands: own.map_or(submit.commands, |commands| &commands.inner),
            wait: inside(submit.wait),
            signal: inside(submit.signal),
        };
        let Taken { first, last, mut wait } = match detour {
            Some(Ok((fault, detour))) => {
                let taken = self.mislead(&inside, detour)?;
                self.core.count(fault);
                taken
            }
            Some(Err(error)) => {
                tracing::debug!("no fault was injected, since that failed: {error}");
                self.plain(&inside, Vec::new())?
            }
            None => self.plain(&inside, Vec::new())?,
        };
        // Events of another device are not this one's to fail.
        let own_waits = inside.wait.into_iter().zip(submit.wait);
        wait.extend(
            own_waits.filter(|(_, (event, _))| FaultEvent::of(event, &self.core).is_some()).map(|(w, _)| w),
        );
        let submission = Arc::new(FaultSubmission::new(&self.core, (first, last), signal));
        self.core.track(queue, UnderWay { submission: submission.clone(), wait });
        Ok(Submission { state: submission })
    }

    /// Prepares a fault; nothing has happened yet.
    fn detour(&self, injection: Injection, label: &str, copies: &[Transfer]) -> Result<Detour> {
        let Injection { fault, mut draws } = injection;
        let failure = |when: &str| DeviceError::Submission {
            label: label.to_owned(),
            reason: format!("{INJECTED}: it failed {when} its commands ran"),
        };
        let (delay, timeout) = {
            let schedule = lock(&self.core.schedule);
            (schedule.plan().delay(), schedule.plan().timeout())
        };
        match fault {
            Fault::FailureAfter => {
                let empty = self.inner.create_encoder(label)?.finish()?;
                Ok(Detour::Followed(empty, (self.inner.create_event(0)?, failure("after"))))
            }
            Fault::TransferCorruption => Ok(Detour::Replaced(self.corrupted(label, copies, &mut draws)?)),
            Fault::TransferDelay | Fault::SubmissionTimeout => {
                let held = if fault == Fault::SubmissionTimeout {
                    timeout
                } else {
                    Duration::from_nanos(draws.below(delay.as_nanos() as u64) + 1)
                };
                let now = Instant::now();
                let until = now.checked_add(held).unwrap_or(now);
                Ok(Detour::Held(self.inner.create_event(0)?, Some(until)))
            }
            _ => {
                let event = self.inner.create_event(0)?;
                event.state.fail(1, failure("before"));
                Ok(Detour::Held(event, None))
            }
        }
    }

    /// The copies again, with noise behind one of them that whatever reads its bytes then sees.
    fn corrupted(&self, label: &str, copies: &[Transfer], draws: &mut Draws) -> Result<CommandBuffer> {
        let places: Vec<_> = (0..copies.len()).filter(|at| copies[*at].target().is_some()).collect();
        let chosen = places.get(draws.below(places.len() as u64) as usize);
        let mut encoder = self.inner.create_encoder(label)?;
        for (at, command) in copies.iter().enumerate() {
            match command {
                Transfer::Barrier => encoder.barrier(),
                Transfer::Copy(from, to) => encoder.copy(from, to)?,
            }
            if let Some(target) = command.target().filter(|_| chosen == Some(&at)) {
                let longest = NOISE.start() + draws.below(NOISE.end() - NOISE.start() + 1);
                let size = target.size.min(longest);
                let place = target.slice(draws.below(target.size - size + 1), size)?;
                let bytes: Vec<u8> = (0..size).map(|_| draws.next() as u8).collect();
                let noise = self.inner.create_buffer(&BufferDesc::own("injected noise", size))?;
                self.inner.write(&noise.whole(), &bytes)?;
                encoder.barrier();
                encoder.copy(&noise.whole(), &place)?;
            }
        }
        encoder.finish()
    }

    /// Submits as the caller wants it, to wait for `more` as well.
    fn plain(&self, inside: &Inside<'_>, more: Vec<(Event, u64)>) -> Result<Taken> {
        let wait = [&inside.wait[..], &more].concat();
        let submit = Submit { commands: inside.commands, wait: &wait, signal: &inside.signal };
        Ok(Taken { first: None, last: self.inner.submit(inside.queue, submit)?, wait: more })
    }

    fn mislead(&self, inside: &Inside<'_>, detour: Detour) -> Result<Taken> {
        match detour {
            Detour::Replaced(commands) => {
                self.plain(&Inside { commands: &commands, ..inside.clone() }, Vec::new())
            }
            Detour::Held(event, until) => {
                let taken = self.plain(inside, vec![(event.clone(), 1)])?;
                if let Some(until) = until {
                    self.clock.add(Gate { event, turn: Turn::At(until) });
                }
                Ok(taken)
            }
            Detour::Followed(tail, (event, error)) => {
                let done = [(self.inner.create_event(0)?, 1)];
                let submit = Submit { commands: inside.commands, wait: &inside.wait, signal: &done };
                let first = self.inner.submit(inside.queue, submit)?;
                let more = vec![done[0].clone(), (event.clone(), 1)];
                if first.poll().is_some() {
                    // It may be a device that makes no waits, only looks at them.
                    event.state.fail(1, error);
                } else {
                    self.clock.add(Gate { event, turn: Turn::After(first.clone(), error) });
                }
                let submit = Submit { commands: &tail, wait: &more, signal: &inside.signal };
                let last = self.inner.submit(inside.queue, submit)?;
                Ok(Taken { first: Some(first), last, wait: more })
            }
        }
    }
}
