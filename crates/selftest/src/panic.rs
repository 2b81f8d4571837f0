//! Panics as values, with the place where they happened.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Inside [`caught`]: what the hook saw, empty so far. Outside: `None`.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic becomes its message with file and line. Panics of other threads, and of this thread outside of
/// here, are told as before.
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let ours = SEEN.with_borrow_mut(|seen| seen.as_mut().map(|seen| *seen = panic.to_string()));
            if ours.is_none() {
                before(panic);
            }
        }));
    });
    SEEN.set(Some(String::new()));
    // What a panic leaves half done is the device's; the caller takes a fresh one.
    let result = catch_unwind(AssertUnwindSafe(body));
    let seen = SEEN.take().unwrap_or_default();
    result.map_err(|_| seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        assert_eq!(caught(|| 5), Ok(5));
        let told = caught(|| -> u8 { panic!("number {}", 7) }).unwrap_err();
        assert!(told.contains("number 7") && told.contains("panic.rs"), "{told}");
        assert_eq!(SEEN.take(), None);
    }
}
