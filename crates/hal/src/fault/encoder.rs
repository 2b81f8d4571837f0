//! Recording, with a note of the copies, so that one of them can be made to go wrong.

use std::sync::Arc;

use super::INJECTED;
use super::core::Core;
use super::plan::Call;
use crate::{CommandBuffer, DeviceError, Dispatch, Encoder, Result, Slice};

/// What a command buffer is behind its handle.
pub(crate) struct FaultCommands {
    pub(crate) inner: CommandBuffer,
    /// All there is, when that is copies and barriers; else nothing.
    pub(crate) copies: Vec<Transfer>,
}

/// A command of the transfer queue.
#[derive(Clone)]
pub(crate) enum Transfer {
    Copy(Slice, Slice),
    Barrier,
}

impl Transfer {
    /// Where bytes go.
    pub(crate) fn target(&self) -> Option<&Slice> {
        match self {
            Self::Copy(_, to) if to.size > 0 => Some(to),
            _ => None,
        }
    }
}

impl FaultCommands {
    /// The commands behind a handle, if they were recorded on a device of this kind.
    pub(crate) fn of(commands: &CommandBuffer) -> Option<&Self> {
        commands.native.downcast_ref()
    }
}

pub(crate) struct FaultEncoder {
    pub(crate) core: Arc<Core>,
    pub(crate) inner: Box<dyn Encoder>,
    pub(crate) label: String,
    /// `None` once it has dispatched.
    pub(crate) copies: Option<Vec<Transfer>>,
}

/// No memory for commands.
pub(crate) fn no_memory(label: &str) -> DeviceError {
    let what = format!("command buffer '{label}' ({INJECTED})");
    DeviceError::OutOfMemory { what, requested: 0, available: 0 }
}

impl Encoder for FaultEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        self.core.alive()?;
        self.copies = None;
        self.inner.dispatch(dispatch)
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        self.core.alive()?;
        self.inner.copy(from, to)?;
        self.note(|| Transfer::Copy(from.clone(), to.clone()));
        Ok(())
    }

    fn barrier(&mut self) {
        self.inner.barrier();
        self.note(|| Transfer::Barrier);
    }

    fn finish(self: Box<Self>) -> Result<CommandBuffer> {
        let Self { core, inner, label, copies } = *self;
        if let Some(injection) = core.meet(Call::Finish, |_| true)? {
            core.count(injection.fault);
            return Err(no_memory(&label));
        }
        let inner = inner.finish()?;
        let label = inner.label.clone();
        Ok(CommandBuffer {
            label,
            native: Arc::new(FaultCommands { inner, copies: copies.unwrap_or_default() }),
        })
    }
}

impl FaultEncoder {
    fn note(&mut self, command: impl FnOnce() -> Transfer) {
        if let Some(copies) = &mut self.copies {
            copies.push(command());
        }
    }
}
