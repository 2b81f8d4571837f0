//! What a checkpoint holds, for reports: counted from names and shapes, without reading a tensor.

use bessemer_weights::{Format, ModelFiles, Quantisation, TensorSource};

/// Parameters and storage of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// Numbers that the network learned; scales and biases of packed weights are storage and not counted.
    pub(crate) parameters: u64,
    /// How most matrices are stored.
    pub(crate) weight_format: String,
    /// Whether matrices are quantised unless one says otherwise.
    pub(crate) quantised: bool,
}

impl Census {
    /// Counts the tensors of `files`.
    pub(crate) fn of(files: &ModelFiles) -> Self {
        let quantisation = Quantisation::from_config(&files.config).unwrap_or_default();
        let tensors = files.tensors.as_ref();
        let parameters = tensors.names().iter().map(|name| elements(tensors, &quantisation, name)).sum();
        let weight_format = match quantisation.default_format() {
            Some(Format::Affine { bits, group }) => format!("affine {bits}-bit, groups of {group}"),
            Some(Format::Mxfp4) => "mxfp4".into(),
            None => plain(tensors),
        };
        Self { parameters, weight_format, quantised: quantisation.default_format().is_some() }
    }
}

/// Parameters in one tensor.
fn elements(tensors: &dyn TensorSource, quantisation: &Quantisation, name: &str) -> u64 {
    let product = |name: &str| -> Option<u64> {
        Some(
            tensors
                .info(name)?
                .shape
                .iter()
                .fold(1, |product: u64, extent| product.saturating_mul(*extent as u64)),
        )
    };
    let packed = |prefix: &str| tensors.info(&format!("{prefix}.scales")).is_some();
    let part = |suffix: &str| name.strip_suffix(suffix).filter(|prefix| packed(prefix));
    if part(".scales").or(part(".biases")).is_some() {
        return 0;
    }
    match part(".weight") {
        Some(prefix) => {
            let group = quantisation.format(prefix).map_or(1, Format::group) as u64;
            product(&format!("{prefix}.scales")).unwrap_or(0).saturating_mul(group)
        }
        None => product(name).unwrap_or(0),
    }
}

/// The type of the largest tensor.
fn plain(tensors: &dyn TensorSource) -> String {
    let infos = tensors.names().into_iter().filter_map(|name| tensors.info(&name));
    let largest =
        infos.max_by_key(|info| info.shape.iter().fold(1_usize, |product, n| product.saturating_mul(*n)));
    largest.map_or_else(|| "none".into(), |info| info.dtype.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bessemer_weights::OpenOptions;

    #[test]
    fn the_embedded_model() {
        let files = ModelFiles::open("default", &OpenOptions::default()).unwrap();
        let census = Census::of(&files);
        assert_eq!(census.weight_format, "affine 4-bit, groups of 64");
        // Embedding; six layers of attention (q, k, v, o, two head norms), router, 16 experts of three matrices, two
        // norms; the last norm.
        let attention = 256 * (6 + 2 + 2) * 64 + 6 * 64 * 256 + 2 * 64;
        let layer = attention + 256 * 16 + 16 * 3 * 256 * 192 + 2 * 256;
        assert_eq!(census.parameters, 4096 * 256 + 6 * layer + 256);
    }
}
