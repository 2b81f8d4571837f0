//! The shaders that were compiled with this crate: see `manifest.rs` and the build script.

use bessemer_hal::Shader;

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Every shader, by name.
pub fn all() -> &'static [Shader] {
    SHADERS
}

/// The shader called `name`.
pub fn find(name: &str) -> Option<&'static Shader> {
    let at = SHADERS.binary_search_by(|shader| shader.name.cmp(name)).ok()?;
    Some(&SHADERS[at])
}

/// A launch of the shader called `name`.
pub(crate) fn launch<P: bytemuck::NoUninit>(
    catalog: &crate::Catalog,
    name: &str,
    bindings: Vec<bessemer_hal::Binding>,
    params: &P,
    groups: [usize; 3],
) -> bessemer_hal::Result<bessemer_hal::Dispatch> {
    Ok(bessemer_hal::Dispatch {
        pipeline: catalog.shader(name)?,
        bindings,
        params: bytemuck::bytes_of(params).to_vec(),
        groups: groups.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
    })
}

/// A launch of `across` workgroups for each of `rows` rows: rows run along y and, beyond what an axis holds, along z.
/// `gpu/grid.wgsl` has the way back; the kernel guards what lies beyond the last row.
pub(crate) fn by_rows(across: usize, rows: usize) -> [usize; 3] {
    const ALONG_Y: usize = 32_768;
    [across, rows.min(ALONG_Y), rows.div_ceil(ALONG_Y)]
}
