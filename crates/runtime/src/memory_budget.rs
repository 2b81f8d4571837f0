//! The memory budget: how many bytes of device memory the process may hold, and who holds them.
//!
//! Weights, KV cache, workspace and prefix cache come from one device, and each would take what it can get. The budget
//! is *hard*: a reservation that does not fit fails before the device is asked, since systems that overcommit refuse too
//! late. It is *honest*: a [`Reservation`] is held as long as the memory is, and gives its bytes back when dropped. It
//! takes no sides: who comes first gets the memory, so that the order of loading (weights, KV cache, pool) is the policy.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::DeviceError;
use serde::Serialize;

/// Who holds device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Matrices of the model.
    Weights,
    /// Blocks for keys and values, but for those of the prefix cache.
    KvCache,
    /// Transient buffers of steps.
    Workspace,
    /// Blocks with keys and values that are kept for later requests, and that no sequence uses.
    PrefixCache,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Weights, Self::KvCache, Self::Workspace, Self::PrefixCache];

    /// What makes room.
    fn cure(self) -> &'static str {
        match self {
            Self::Weights => "take a smaller or more strongly quantised model, or raise the memory budget",
            Self::KvCache => "lower the memory of the KV cache or the context, or raise the memory budget",
            Self::Workspace => {
                "lower memory_pool.heap_size_mb, memory_pool.num_heaps or the tokens of a batch, \
                 or raise the memory budget"
            }
            Self::PrefixCache => "lower the memory of the prefix cache, or raise the memory budget",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::KvCache => "KV cache",
            Self::Workspace => "workspace",
            Self::PrefixCache => "prefix cache",
        })
    }
}

/// A reservation that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner}: {wanted} bytes do not fit the memory budget: {free} of {budget} bytes are free; {}",
    owner.cure()
)]
pub struct MemoryBudgetError {
    /// Who asked.
    pub owner: Owner,
    /// Bytes asked for.
    pub wanted: u64,
    /// Bytes that nobody holds.
    pub free: u64,
    /// Bytes in all.
    pub budget: u64,
}

impl From<MemoryBudgetError> for DeviceError {
    fn from(error: MemoryBudgetError) -> Self {
        let MemoryBudgetError { owner, wanted, free, budget } = error;
        Self::OutOfMemory {
            what: format!("{owner} (memory budget {budget} bytes; {})", owner.cure()),
            requested: wanted,
            available: free,
        }
    }
}

/// Bytes held, by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryBudgetGauges {
    /// Bytes in all.
    pub budget: u64,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of the KV cache, but for kept prefixes.
    pub kv_cache: u64,
    /// Bytes of transient buffers and the heaps for them.
    pub workspace: u64,
    /// Bytes of kept prefixes.
    pub prefix_cache: u64,
}

impl MemoryBudgetGauges {
    /// Bytes held by all owners.
    pub fn used(&self) -> u64 {
        Owner::ALL.iter().map(|owner| self.of(*owner)).sum()
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.budget - self.used()
    }

    /// Bytes of one owner.
    pub fn of(&self, owner: Owner) -> u64 {
        match owner {
            Owner::Weights => self.weights,
            Owner::KvCache => self.kv_cache,
            Owner::Workspace => self.workspace,
            Owner::PrefixCache => self.prefix_cache,
        }
    }

    fn of_mut(&mut self, owner: Owner) -> &mut u64 {
        match owner {
            Owner::Weights => &mut self.weights,
            Owner::KvCache => &mut self.kv_cache,
            Owner::Workspace => &mut self.workspace,
            Owner::PrefixCache => &mut self.prefix_cache,
        }
    }
}

/// Bytes of device memory that a process may hold.
#[derive(Debug)]
pub struct MemoryBudget {
    gauges: Mutex<MemoryBudgetGauges>,
}

impl MemoryBudget {
    /// A budget of so many bytes, all of them free.
    pub fn new(bytes: u64) -> Arc<Self> {
        let gauges = MemoryBudgetGauges { budget: bytes, ..MemoryBudgetGauges::default() };
        Arc::new(Self { gauges: Mutex::new(gauges) })
    }

    /// Reserves `bytes` for an owner, until the reservation is dropped.
    ///
    /// # Errors
    /// When they are not free; nothing has changed then.
    pub fn reserve(self: &Arc<Self>, owner: Owner, bytes: u64) -> Result<Reservation, MemoryBudgetError> {
        let mut gauges = self.lock();
        let (free, budget) = (gauges.free(), gauges.budget);
        if bytes > free {
            return Err(MemoryBudgetError { owner, wanted: bytes, free, budget });
        }
        *gauges.of_mut(owner) += bytes;
        Ok(Reservation { budget: self.clone(), owner, bytes, elsewhere: None })
    }

    /// Who holds how much.
    pub fn gauges(&self) -> MemoryBudgetGauges {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryBudgetGauges> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a budget; they return when it is dropped.
#[derive(Debug)]
#[must_use = "the bytes return when it is dropped"]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    owner: Owner,
    bytes: u64,
    /// Whom a part of it is counted for, and how much that is.
    elsewhere: Option<(Owner, u64)>,
}

impl Reservation {
    /// Who holds it.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts `bytes` of it, at most all, for another owner from now on, and the rest for its own. What is held stays the
    /// same.
    pub fn count_as(&mut self, owner: Owner, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        let mut gauges = self.budget.lock();
        if let Some((owner, bytes)) = self.elsewhere.replace((owner, bytes)) {
            *gauges.of_mut(owner) -= bytes;
            *gauges.of_mut(self.owner) += bytes;
        }
        *gauges.of_mut(self.owner) -= bytes;
        *gauges.of_mut(owner) += bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (elsewhere, bytes) = self.elsewhere.unwrap_or((self.owner, 0));
        let mut gauges = self.budget.lock();
        *gauges.of_mut(elsewhere) -= bytes;
        *gauges.of_mut(self.owner) -= self.bytes - bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_with_their_reservation() {
        let budget = MemoryBudget::new(100);
        let weights = budget.reserve(Owner::Weights, 60).unwrap();
        let cache = budget.reserve(Owner::KvCache, 30).unwrap();
        let prefix = budget.reserve(Owner::PrefixCache, 4).unwrap();
        assert_eq!((weights.owner(), weights.bytes()), (Owner::Weights, 60));
        let all =
            MemoryBudgetGauges { budget: 100, weights: 60, kv_cache: 30, workspace: 0, prefix_cache: 4 };
        assert_eq!(budget.gauges(), all);
        assert_eq!((all.used(), all.free()), (94, 6));
        drop(weights);
        assert_eq!((budget.gauges().weights, budget.gauges().free()), (0, 66));
        drop((cache, prefix));
        assert_eq!(budget.gauges().used(), 0);
    }

    #[test]
    fn a_part_may_count_for_another() {
        let budget = MemoryBudget::new(100);
        let mut cache = budget.reserve(Owner::KvCache, 60).unwrap();
        for (bytes, counted) in [(20, 20), (45, 45), (0, 0), (61, 60), (7, 7)] {
            cache.count_as(Owner::PrefixCache, bytes);
            let gauges = budget.gauges();
            assert_eq!((gauges.kv_cache, gauges.prefix_cache, gauges.free()), (60 - counted, counted, 40));
        }
        cache.count_as(Owner::Weights, 9);
        let gauges = budget.gauges();
        assert_eq!((gauges.kv_cache, gauges.prefix_cache, gauges.weights), (51, 0, 9));
        drop(cache);
        assert_eq!(budget.gauges().used(), 0);
    }

    #[test]
    fn a_full_budget_names_owner_numbers_and_cure() {
        let budget = MemoryBudget::new(100);
        let _all_but_ten = budget.reserve(Owner::Weights, 90).unwrap();
        for (owner, knob) in [
            (Owner::Weights, "quantised"),
            (Owner::KvCache, "context"),
            (Owner::Workspace, "memory_pool.num_heaps"),
            (Owner::PrefixCache, "prefix cache"),
        ] {
            let error = budget.reserve(owner, 11).unwrap_err();
            assert_eq!(error, MemoryBudgetError { owner, wanted: 11, free: 10, budget: 100 });
            let message = error.to_string();
            assert!(message.starts_with(&format!("{owner}: 11 bytes")), "{message}");
            assert!(message.contains("10 of 100 bytes are free") && message.contains(knob), "{message}");
            let device = DeviceError::from(error).to_string();
            assert!(device.contains(&owner.to_string()) && device.contains(knob), "{device}");
        }
        assert_eq!(budget.gauges().used(), 90, "a refused reservation changes nothing");
        let _ten = budget.reserve(Owner::KvCache, 10).unwrap();
        assert!(budget.reserve(Owner::KvCache, u64::MAX).is_err());
    }

    #[test]
    fn threads_never_hold_more_than_the_budget() {
        let budget = MemoryBudget::new(1000);
        std::thread::scope(|scope| {
            for owner in Owner::ALL {
                let budget = &budget;
                scope.spawn(move || {
                    for bytes in 0..500 {
                        let held = budget.reserve(owner, bytes);
                        let gauges = budget.gauges();
                        assert!(gauges.used() <= 1000);
                        assert_eq!(gauges.of(owner), held.map_or(0, |held| held.bytes()));
                    }
                });
            }
        });
        assert_eq!(budget.gauges().used(), 0);
    }
}
