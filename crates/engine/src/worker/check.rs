//! The generations of the self-check among the thread's other work.

use super::{Owner, Worker};
use crate::EngineError;
use crate::self_check::SelfCheck;
use crate::sequence::{Sequence, SequenceId};

impl Worker {
    /// Begins a run of the self-check, if one is due. Nothing else is to be done.
    pub(super) fn begin_check(&mut self) -> bool {
        let Some((prompt, run)) = self.check.as_mut().and_then(SelfCheck::begin) else { return false };
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let most = prompt.len() + run.wanted();
        self.owners.insert(id, Owner::Check(run));
        if self.scheduler.add(Sequence::new(id, prompt, most)).is_err() {
            let error = EngineError::invalid("kv_memory", "must hold a self-check", most, "Give more memory");
            self.end(vec![(id, Err(error))]);
        }
        true
    }

    /// Ends a run of the self-check, because something else is to be done.
    pub(super) fn interrupt_check(&mut self) {
        if self.check.as_ref().is_some_and(SelfCheck::is_running) {
            while !self.under_way.is_empty() {
                self.finish_step();
            }
            // It has no end of its own: whoever asks finds it gone.
            let scheduler = &mut self.scheduler;
            self.owners.retain(|id, owner| {
                let stays = !matches!(owner, Owner::Check(_));
                if !stays {
                    scheduler.remove(*id);
                }
                stays
            });
            self.publish();
        }
        if let Some(check) = &mut self.check {
            check.give_way();
        }
    }
}
