//! What the prefix cache gives to requests, and what it holds.

use super::{Owner, Worker};
use crate::scheduler::Plan;

impl Worker {
    /// Counts what the sequences of a plan that run for the first time have found.
    pub(super) fn count_found(&mut self, plan: &Plan) {
        for (id, tokens) in &plan.found {
            if let Some(Owner::Generate { outlet, usage, .. }) = self.owners.get_mut(id) {
                usage.cached_tokens = *tokens;
                outlet.cached(*tokens);
                self.stats.prefix_cache_queries += usage.prompt_tokens as u64;
                self.stats.prefix_cache_hits += *tokens as u64;
            }
        }
    }

    /// Tells the memory budget whose the blocks are.
    pub(super) fn account_cached(&mut self) {
        let cached = self.scheduler.pool().cached();
        if self.stats.kv_blocks_cached != cached {
            self.stats.kv_blocks_cached = cached;
            self.forward.account_cached(cached);
        }
    }
}
