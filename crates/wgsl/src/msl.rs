//! A module as Metal's shading language.

use naga::back::msl::{BindTarget, EntryPointResources, Options, PipelineOptions, write_string};
use naga::valid::ModuleInfo;
use naga::{Module, ResourceBinding, ShaderStage};

use crate::spirv::UNCHECKED;

/// Source and entry point. Binding `i` is buffer `i`, the parameters are the buffer after them, and the buffer after
/// those holds the sizes that naga asks for and, without bounds checks, never reads.
pub(crate) fn write(module: &Module, info: &ModuleInfo, bindings: u32) -> Result<(String, String), String> {
    let mut resources = EntryPointResources::default();
    for (_, variable) in module.global_variables.iter() {
        let Some(ResourceBinding { group: 0, binding }) = variable.binding else { continue };
        let target = BindTarget { buffer: Some(slot(binding)?), mutable: true, ..BindTarget::default() };
        resources.resources.insert(ResourceBinding { group: 0, binding }, target);
    }
    resources.immediates_buffer = Some(slot(bindings)?);
    resources.sizes_buffer = Some(slot(bindings + 1)?);
    let options = Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Options::default()
    };
    let pipeline = PipelineOptions {
        entry_point: Some((ShaderStage::Compute, "main".to_owned())),
        ..PipelineOptions::default()
    };
    let (source, translation) =
        write_string(module, info, &options, &pipeline).map_err(|error| error.to_string())?;
    match translation.entry_point_names.into_iter().next() {
        Some(Ok(entry)) => Ok((source, entry)),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("no entry point was written".into()),
    }
}

fn slot(index: u32) -> Result<u8, String> {
    u8::try_from(index).map_err(|_| format!("buffer {index}; Metal has 31"))
}
