//! How the bytes of steps travel: what goes in ahead of a step, and what comes out behind it.
//!
//! - *The next step's inputs go up while a step runs*: that is a prefetch. The engine plans and submits one step
//!   ahead, so ids, positions, block tables and sampling parameters of step N + 1 are known while step N computes: the
//!   next row of each sequence that decodes, whose token alone comes from the device, or the next chunk of a prompt.
//! - *Without prefetching* (`prefetch_enabled: false`) they go up behind the step that runs, on the device's queue for
//!   copies: the host does not wait, but the device does between two steps.
//! - *What fails is made again in the plain way*, and latches the queue off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bessemer_hal::{Device, DeviceError, Event, Result, Slice};

use crate::standing::Standing;
use crate::{
    Download, Feature, Prefetch, Runtime, Step, TransferQueue, TransferQueueConfig, TransferQueueError,
    TransferResult,
};

/// How a submission finds its data.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// When this is reached.
    Event((Event, u64)),
    /// As the batch of this number that was prefetched.
    Prefetched(u64),
}

impl Runtime {
    /// Brings the data of the next step to `to`, as far as possible while a step runs. `None`: it is there.
    ///
    /// # Errors
    /// When it does not arrive, not even in the plain way.
    pub(crate) fn upload(&self, to: &Slice, data: &[u8]) -> Result<Option<Arrival>> {
        match self.upload_once(to, data) {
            Err(error) if self.fall_back(Feature::BlitQueue, &error) => Ok(self.upload_once(to, data)?),
            outcome => Ok(outcome?),
        }
    }

    fn upload_once(&self, to: &Slice, data: &[u8]) -> TransferResult<Option<Arrival>> {
        let queue = self.transfer_queue();
        let in_front = if queue.is_enabled() { self.step_under_way() } else { None };
        if in_front.is_some() {
            let batch = self.batches.fetch_add(1, Ordering::Relaxed);
            if queue.prefetch_next_batch(batch, &[Prefetch { to, data }], None)? {
                return Ok(Some(Arrival::Prefetched(batch)));
            }
        }
        let ticket = queue.upload(to, data, in_front)?;
        if !queue.is_completed(&ticket) {
            return Ok(Some(Arrival::Event(ticket.event())));
        }
        queue.wait_for_completion(&ticket, Duration::ZERO)?;
        Ok(None)
    }

    /// What a submission waits for.
    ///
    /// # Errors
    /// [`DeviceError::Submission`] when its data is known not to have arrived.
    pub(crate) fn ready(&self, arrival: Option<Arrival>) -> Result<Option<(Event, u64)>> {
        let batch = match arrival {
            None => return Ok(None),
            Some(Arrival::Event(event)) => return Ok(Some(event)),
            Some(Arrival::Prefetched(batch)) => batch,
        };
        let queue = self.transfer_queue();
        let Some(tickets) = queue.take_prefetched(batch) else {
            let reason = "the data that was prefetched for the step has not arrived".into();
            return Err(DeviceError::Submission { label: "prefetch".into(), reason });
        };
        Ok(tickets.iter().find(|ticket| !queue.is_completed(ticket)).map(|ticket| ticket.event()))
    }

    /// Starts bringing a result of a step to the host, behind the step; `None` where that is done when it is asked for:
    /// with the transfer queue off, with verification, and where the host sees the memory anyway.
    pub fn download_ahead(&self, step: &Step, from: &Slice) -> Option<Download> {
        let queue = self.transfer_queue();
        let unified = self.device().info().limits.unified_memory;
        if unified || !queue.downloads_ahead() {
            return None;
        }
        match queue.download(from, Some(step.reached())) {
            Ok(download) => Some(download),
            Err(error) => {
                self.fall_back(Feature::BlitQueue, &error);
                None
            }
        }
    }

    /// The bytes of a result of a completed step; `ahead` is what [`Runtime::download_ahead`] gave.
    ///
    /// # Errors
    /// When they do not arrive, not even in the plain way.
    pub fn bytes(&self, from: &Slice, ahead: Option<Download>) -> Result<Vec<u8>> {
        let take = |ahead: Option<Download>| -> TransferResult<Vec<u8>> {
            let queue = self.transfer_queue();
            let timeout = Duration::from_millis(queue.config().timeout_ms);
            let mut download = ahead.map_or_else(|| queue.download(from, None), Ok)?;
            queue.wait_for_bytes(&mut download, timeout)
        };
        match take(ahead) {
            Err(error) if self.fall_back(Feature::BlitQueue, &error) => Ok(take(None)?),
            outcome => Ok(outcome?),
        }
    }
}

/// The queue of the settings; a small one, latched off, when the device has no memory for its ring.
pub(crate) fn transfer_queue(device: &Arc<dyn Device>, standing: &mut Standing) -> Result<TransferQueue> {
    let config = standing.settings().blit_queue.config.clone();
    match open_queue(device, &config) {
        Err(error) if standing.latch(Feature::BlitQueue, (&error).into(), error.to_string()) => {
            open_queue(device, &TransferQueueConfig { staging_buffer_size_mb: 1, ..config })
        }
        outcome => outcome,
    }
}

pub(crate) fn open_queue(device: &Arc<dyn Device>, config: &TransferQueueConfig) -> Result<TransferQueue> {
    TransferQueue::new(device.clone(), config.clone()).map_err(|error| match error {
        TransferQueueError::Device(error) => error,
        TransferQueueError::Config(error) => error.into(),
    })
}
