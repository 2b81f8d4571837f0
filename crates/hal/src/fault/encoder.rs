//! Recording, with a note of where copies go.

use std::sync::Arc;

use super::INJECTED;
use super::core::Core;
use super::plan::Call;
use crate::{CommandBuffer, DeviceError, Dispatch, Encoder, Result, Slice};

/// What a command buffer is behind its handle.
pub(crate) struct FaultCommands {
    pub(crate) inner: CommandBuffer,
    /// Where its copies go, without the empty ones.
    pub(crate) targets: Vec<Slice>,
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
    pub(crate) targets: Vec<Slice>,
}

/// No memory for commands.
pub(crate) fn no_memory(label: &str) -> DeviceError {
    let what = format!("command buffer '{label}' ({INJECTED})");
    DeviceError::OutOfMemory { what, requested: 0, available: 0 }
}

impl Encoder for FaultEncoder {
    fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        self.core.alive()?;
        self.inner.dispatch(dispatch)
    }

    fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        self.core.alive()?;
        self.inner.copy(from, to)?;
        if to.size > 0 {
            self.targets.push(to.clone());
        }
        Ok(())
    }

    fn barrier(&mut self) {
        self.inner.barrier();
    }

    fn finish(self: Box<Self>) -> Result<CommandBuffer> {
        let Self { core, inner, label, targets } = *self;
        if let Some(injection) = core.meet(Call::Finish, |_| true)? {
            core.count(injection.fault);
            return Err(no_memory(&label));
        }
        let inner = inner.finish()?;
        let label = inner.label.clone();
        Ok(CommandBuffer { label, native: Arc::new(FaultCommands { inner, targets }) })
    }
}
