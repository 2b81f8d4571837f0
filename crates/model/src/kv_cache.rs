//! Keys and values of all layers, in blocks.

use bessemer_hal::{DeviceError, Slice};
use bessemer_kernels::KvType;
use bessemer_kernels::kv::STRIP;
use bessemer_runtime::{Owner, Reservation, Runtime};

use crate::{KvPrecision, ModelConfig, ModelError, Result};

/// Keys and values of all layers: `blocks × block_size` rows of `kv_heads · head_dim` elements each, in
/// strips of 16 rows (see [`bessemer_kernels::kv`]).
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<KvLayer>,
    pub(crate) kv_type: KvType,
    pub(crate) block_size: usize,
    pub(crate) rows: usize,
    bytes: u64,
    /// What it counts against the budget.
    share: Reservation,
}

/// One layer's part.
#[derive(Debug)]
pub(crate) struct KvLayer {
    pub(crate) keys: Slice,
    pub(crate) values: Slice,
}

impl KvCache {
    pub(crate) fn new(
        runtime: &Runtime,
        config: &ModelConfig,
        precision: KvPrecision,
        blocks: usize,
        block_size: usize,
    ) -> Result<Self> {
        if block_size == 0 || !block_size.is_multiple_of(STRIP) {
            return Err(ModelError::Cache(format!(
                "block_size must be a multiple of {STRIP}, the rows of a strip of the KV cache; given: {block_size}; \
                 round it up to {}",
                block_size.max(1).next_multiple_of(STRIP)
            )));
        }
        let rows = blocks * block_size;
        let bytes = (rows * config.kv_heads * config.head_dim * precision.bytes()) as u64;
        let all = bytes * 2 * config.layers as u64;
        let share = runtime.budget().reserve(Owner::KvCache, all).map_err(DeviceError::from)?;
        let layers = (0..config.layers)
            .map(|layer| {
                Ok(KvLayer {
                    keys: runtime.allocate(&format!("keys.{layer}"), bytes)?,
                    values: runtime.allocate(&format!("values.{layer}"), bytes)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, kv_type: precision.kv_type(), block_size, rows, bytes: all, share })
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks.
    pub fn blocks(&self) -> usize {
        self.rows / self.block_size
    }

    /// Device memory of all layers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many blocks hold prefixes for later requests: the memory budget counts them as the prefix cache's.
    pub fn account_cached(&mut self, blocks: usize) {
        let bytes = self.bytes / self.blocks().max(1) as u64 * blocks as u64;
        self.share.count_as(Owner::PrefixCache, bytes);
    }
}
