//! What a failed command buffer means.

use crate::DeviceError;

/// How a command buffer ended that did not complete: `NSError`'s code in `MTLCommandBufferErrorDomain`, and its texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    /// `MTLCommandBufferError`; `None` when the error is of another domain.
    pub(crate) code: Option<usize>,
    /// The system's words.
    pub(crate) text: String,
    /// Labels of the encoders that did not complete, with their state.
    pub(crate) encoders: Vec<String>,
}

/// The memory that live heaps and buffers hold, and the budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryInUse {
    pub(crate) allocated: u64,
    pub(crate) budget: u64,
}

/// The values of `MTLCommandBufferError`; a test on Apple's systems compares them with the system's.
pub(crate) mod code {
    pub(crate) const INTERNAL: usize = 1;
    pub(crate) const TIMEOUT: usize = 2;
    pub(crate) const PAGE_FAULT: usize = 3;
    pub(crate) const ACCESS_REVOKED: usize = 4;
    pub(crate) const NOT_PERMITTED: usize = 7;
    pub(crate) const OUT_OF_MEMORY: usize = 8;
    pub(crate) const INVALID_RESOURCE: usize = 9;
    pub(crate) const MEMORYLESS: usize = 10;
    pub(crate) const DEVICE_REMOVED: usize = 11;
    pub(crate) const STACK_OVERFLOW: usize = 12;
}

impl Failure {
    /// The error that those who wait for submission `label` get.
    ///
    /// The device is lost when the system will run nothing of this process any more: after the removal of the GPU, and
    /// after the system has taken the GPU away from a process that hung it too often. All else fails one submission.
    pub(crate) fn error(&self, label: &str, memory: MemoryInUse) -> DeviceError {
        let cause = match self.code {
            Some(code::OUT_OF_MEMORY) => {
                return DeviceError::OutOfMemory {
                    what: format!(
                        "submission '{label}' ({}), with every buffer of this device,",
                        self.told()
                    ),
                    requested: memory.allocated,
                    available: memory.budget.saturating_sub(memory.allocated),
                };
            }
            Some(code::DEVICE_REMOVED) => {
                return DeviceError::Lost(format!("the GPU was removed ({})", self.told()));
            }
            Some(code::ACCESS_REVOKED) => {
                return DeviceError::Lost(format!(
                    "the system has taken the GPU away from this process, because its work hung the GPU too often \
                     ({}); restart the process",
                    self.told()
                ));
            }
            Some(code::INTERNAL) => "the GPU's driver failed",
            Some(code::TIMEOUT) => {
                "the GPU did not finish in the time that the system allows; bound the work of a command buffer"
            }
            Some(code::PAGE_FAULT) => "a kernel left its buffers, or a buffer was not resident",
            Some(code::NOT_PERMITTED) => "the system does not permit this process to use the GPU now",
            Some(code::INVALID_RESOURCE) => "a buffer was deleted while it was in use",
            Some(code::MEMORYLESS) => "the GPU ran out of internal memory",
            Some(code::STACK_OVERFLOW) => "a kernel overflowed its stack",
            Some(other) => return self.submission(label, &format!("command buffer error {other}")),
            None => "the GPU failed",
        };
        self.submission(label, cause)
    }

    fn submission(&self, label: &str, cause: &str) -> DeviceError {
        DeviceError::Submission { label: label.to_owned(), reason: format!("{cause} ({})", self.told()) }
    }

    fn told(&self) -> String {
        let text = if self.text.is_empty() { "the system gives no reason" } else { &self.text };
        if self.encoders.is_empty() {
            return text.to_owned();
        }
        format!("{text}; {}", self.encoders.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: MemoryInUse = MemoryInUse { allocated: 700, budget: 1000 };

    fn error(code: Option<usize>) -> DeviceError {
        let failure = Failure {
            code,
            text: "Caused GPU Hang Error".into(),
            encoders: vec!["'step 1 of 2' is faulted".into()],
        };
        failure.error("decode", MEMORY)
    }

    #[test]
    fn only_a_gpu_that_is_gone_loses_the_device() {
        for gone in [code::DEVICE_REMOVED, code::ACCESS_REVOKED] {
            assert!(matches!(error(Some(gone)), DeviceError::Lost(_)), "{gone}");
        }
        for code in (0..20).filter(|c| ![4, 8, 11].contains(c)).map(Some).chain([None]) {
            let DeviceError::Submission { label, reason } = error(code) else { panic!("{code:?}") };
            assert_eq!(label, "decode");
            assert!(reason.contains("GPU Hang") && reason.contains("'step 1 of 2' is faulted"), "{reason}");
        }
    }

    #[test]
    fn memory_that_ran_out_is_told_with_its_size() {
        let DeviceError::OutOfMemory { what, requested, available } = error(Some(code::OUT_OF_MEMORY)) else {
            panic!("not out of memory")
        };
        assert!(what.contains("'decode'"), "{what}");
        assert_eq!((requested, available), (700, 300));
    }

    #[test]
    fn an_unknown_code_is_told_by_its_number() {
        assert!(error(Some(99)).to_string().contains("99"));
        let silent = Failure::default().error("copy", MEMORY);
        assert!(silent.to_string().contains("no reason"), "{silent}");
    }

    #[cfg(target_vendor = "apple")]
    #[test]
    fn the_codes_are_the_systems() {
        use objc2_metal::MTLCommandBufferError as System;
        let same = [
            (code::INTERNAL, System::Internal),
            (code::TIMEOUT, System::Timeout),
            (code::PAGE_FAULT, System::PageFault),
            (code::ACCESS_REVOKED, System::AccessRevoked),
            (code::NOT_PERMITTED, System::NotPermitted),
            (code::OUT_OF_MEMORY, System::OutOfMemory),
            (code::INVALID_RESOURCE, System::InvalidResource),
            (code::MEMORYLESS, System::Memoryless),
            (code::DEVICE_REMOVED, System::DeviceRemoved),
            (code::STACK_OVERFLOW, System::StackOverflow),
        ];
        for (ours, system) in same {
            assert_eq!(ours, system.0);
        }
    }
}
