//! Models by their Hugging Face id: downloaded once into the usual cache, then opened like any folder.
//!
//! - **The usual cache**, laid out as `huggingface_hub` lays it out (`models--org--name/{blobs,refs,snapshots}`): what
//!   Python downloaded is found here, and the other way round.
//! - **Resumed, not restarted.** A broken transfer goes on from the byte it reached, within one call and across calls,
//!   and the whole file is then checked against its size and, for large files, its SHA-256.
//! - **Our own client over `ureq`**, not the `hf-hub` crate: version 1.0 of that crate truncates the partial file and
//!   begins again, does not know `HF_HUB_OFFLINE`, and needs an asynchronous runtime and the xet stack to fetch ten
//!   files. Files in xet storage are served over plain HTTP with ranges, which is all that is used here.
//! - **Only what is opened** is fetched: configuration, tokenizer, template, index, safetensors.
//! - **Offline means offline**: with `HF_HUB_OFFLINE=1` nothing is asked of the network. A hub that cannot be reached is
//!   no error either, if the cache holds the whole model.
//!
//! Known gap: certificates are checked against Mozilla's roots only; a company's own authority is not known.

mod cache;
mod client;
mod download;
mod environment;
mod id;

use std::path::PathBuf;
use std::sync::Arc;

use crate::folder::{INDEX, Index};
use crate::{Result, WeightsError};

use cache::Cache;
use client::{Client, Listing};

pub use environment::{Access, HubOptions};
pub(crate) use id::HubId;

/// Told about every file while it is downloaded. Called often, from the thread that opened the model.
pub trait Progress: Send + Sync {
    /// `done` of `total` bytes of `file` are on disk. A resumed file starts above zero; every file ends with
    /// `done == total`.
    fn downloaded(&self, file: &str, done: u64, total: u64);
}

/// Small files that are opened if they are there.
const SMALL: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
];

const SINGLE: &str = "model.safetensors";

/// The folder of the model, downloaded as far as it is not yet in the cache.
pub(crate) fn fetch(
    id: &HubId,
    options: &HubOptions,
    progress: Option<&Arc<dyn Progress>>,
) -> Result<PathBuf> {
    let cache = Cache::new(&options.cache, id);
    let cached = cache.snapshot();
    if options.access == Access::Offline {
        return cached.ok_or_else(|| WeightsError::Hub {
            id: id.to_string(),
            rule: format!(
                "HF_HUB_OFFLINE is set and {} does not hold the whole model",
                cache.folder().display()
            ),
            cure: "Unset HF_HUB_OFFLINE to download it, or set HF_HOME to the cache that has it".into(),
        });
    }
    if let (true, Some(folder)) = (id.is_commit(), &cached) {
        return Ok(folder.clone());
    }
    let client = Client::new(options, id);
    match client.listing() {
        Ok(listing) => download(&client, &cache, &listing, progress),
        Err(client::Failure::Unreachable(reason)) => match cached {
            Some(folder) => {
                tracing::warn!(model = %id, %reason, "the hub cannot be reached; using the cached model");
                Ok(folder)
            }
            None => Err(WeightsError::Hub {
                id: id.to_string(),
                rule: format!("{} cannot be reached: {reason}", options.endpoint),
                cure: "Check the network, HF_ENDPOINT and HTTPS_PROXY, or give a local folder".into(),
            }),
        },
        Err(client::Failure::Refused(error)) => Err(error),
    }
}

fn download(
    client: &Client,
    cache: &Cache,
    listing: &Listing,
    progress: Option<&Arc<dyn Progress>>,
) -> Result<PathBuf> {
    let folder = cache.snapshot_of(&listing.commit);
    let fetch = |file: &str| {
        download::file(client, cache, &listing.commit, file, &|done, total| {
            if let Some(progress) = progress {
                progress.downloaded(file, done, total);
            }
        })
    };
    for file in SMALL.iter().filter(|file| listing.holds(file)) {
        fetch(file)?;
    }
    let shards = if listing.holds(INDEX) {
        let path = folder.join(INDEX);
        let text = std::fs::read(&path).map_err(WeightsError::io(&path, "read it"))?;
        Index::parse(&path.display().to_string(), &text)?.shards()
    } else if listing.holds(SINGLE) {
        vec![SINGLE.to_owned()]
    } else {
        return Err(WeightsError::Hub {
            id: client.id().to_string(),
            rule: format!("it holds neither {SINGLE} nor {INDEX}"),
            cure: "Only safetensors are read; look for a conversion, for example under mlx-community".into(),
        });
    };
    for shard in shards {
        if !listing.holds(&shard) {
            return Err(WeightsError::Hub {
                id: client.id().to_string(),
                rule: format!("its {INDEX} names {shard:?}, which the repository does not hold"),
                cure: "Choose another revision, or tell the repository's owner".into(),
            });
        }
        fetch(&shard)?;
    }
    cache.remember(&listing.commit)?;
    Ok(folder)
}
