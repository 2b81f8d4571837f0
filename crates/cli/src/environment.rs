//! The environment variables of this program, read here and nowhere else. An empty one counts as unset.

use anyhow::bail;
use bessemer_engine::Master;

/// The key that clients of the server must send.
pub const API_KEY: &str = "BESSEMER_API_KEY";

/// What is logged.
pub const LOG: &str = "BESSEMER_LOG";

/// The master switch of the three optimisations.
pub const METAL_OPTIMIZATIONS_ENABLED: &str = "METAL_OPTIMIZATIONS_ENABLED";

/// The master switch, if [`METAL_OPTIMIZATIONS_ENABLED`] is set.
///
/// # Errors
/// When its value is another than `false`, `true` or `auto`.
pub fn metal_optimizations() -> anyhow::Result<Option<Master>> {
    let name = METAL_OPTIMIZATIONS_ENABLED;
    let Some(given) = variable(name)? else { return Ok(None) };
    match given.parse() {
        Ok(master) => Ok(Some(master)),
        Err(_) => bail!("{name}: must be false, true or auto, but it is {given:?}. Correct or unset it"),
    }
}

/// The value of `name`, if it is set.
///
/// # Errors
/// When the value is not UTF-8.
pub fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            bail!("{name}: must be UTF-8 text, but it holds other bytes. Correct or unset it")
        }
    }
}
