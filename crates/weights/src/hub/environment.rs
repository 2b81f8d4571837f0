//! The environment variables of the Hugging Face tools, read here and nowhere else.
//!
//! `HF_ENDPOINT`, `HF_TOKEN` (or the file `HF_TOKEN_PATH`, `$HF_HOME/token`), `HF_HUB_CACHE`, `HF_HOME`,
//! `XDG_CACHE_HOME`, `HF_HUB_OFFLINE`. An empty variable counts as unset. Proxies are `ureq`'s business.

use std::fmt;
use std::path::PathBuf;

use crate::{Result, WeightsError};

/// Where the hub is and where its files go.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Base URL without a slash at its end.
    pub endpoint: String,
    /// Folder of the cache (`…/huggingface/hub`).
    pub cache: PathBuf,
    /// Access token for gated and private models.
    pub token: Option<String>,
    /// Whether the network may be asked.
    pub access: Access,
}

/// Whether the network may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Download what is missing.
    Online,
    /// Use the cache only.
    Offline,
}

impl HubOptions {
    /// From the process's environment.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// From any set of variables.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = || variable("HOME").map(PathBuf::from).or_else(std::env::home_dir).unwrap_or_default();
        let hf_home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
            cache.join("huggingface")
        });
        let token = variable("HF_TOKEN").or_else(|| {
            let path = variable("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), PathBuf::from);
            std::fs::read_to_string(path).ok()
        });
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(WeightsError::Name {
                name: endpoint,
                rule: "HF_ENDPOINT must begin with http:// or https://".into(),
                cure: "Correct or unset HF_ENDPOINT".into(),
            });
        }
        let access = match variable("HF_HUB_OFFLINE").map(|value| value.to_ascii_lowercase()).as_deref() {
            None | Some("0" | "false" | "no" | "off") => Access::Online,
            Some("1" | "true" | "yes" | "on") => Access::Offline,
            Some(other) => {
                return Err(WeightsError::Name {
                    name: other.into(),
                    rule: "HF_HUB_OFFLINE must be 1 or 0".into(),
                    cure: "Correct or unset HF_HUB_OFFLINE".into(),
                });
            }
        };
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache: variable("HF_HUB_CACHE").map_or_else(|| hf_home.join("hub"), PathBuf::from),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            access,
        })
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("access", &self.access)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<HubOptions> {
        HubOptions::from_variables(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_nearest_variable_wins() {
        let cache = |pairs: &[(&str, &str)]| with(pairs).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/h")]), PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")]), PathBuf::from("/f/hub"));
        assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        let options =
            with(&[("HF_HOME", "/f"), ("HF_TOKEN", " t\n"), ("HF_ENDPOINT", "http://hub/")]).unwrap();
        assert_eq!((options.token.as_deref(), options.endpoint.as_str()), (Some("t"), "http://hub"));
        assert_eq!(options.access, Access::Online);
        assert!(!format!("{options:?}").contains("\"t\""));
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_its_variable() {
        assert_eq!(with(&[("HF_HUB_OFFLINE", "ON")]).unwrap().access, Access::Offline);
        assert!(with(&[("HF_HUB_OFFLINE", "maybe")]).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
        assert!(with(&[("HF_ENDPOINT", "hub.local")]).unwrap_err().to_string().contains("HF_ENDPOINT"));
    }
}
