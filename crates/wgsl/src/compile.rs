//! From source text to a validated module, and what a launch must know of it.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess};

use crate::{msl, spirv};

/// Bytes of parameters at most: what every GPU gives as push constants.
const MAX_PARAMS: u32 = 128;

/// Why a kernel does not build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no WGSL, or its types do not fit.
    #[error("{name} does not compile:\n{report}")]
    Source {
        /// Name of the kernel.
        name: String,
        /// Where and why, with the lines of the source.
        report: String,
    },
    /// It is WGSL, but not a kernel of ours.
    #[error("{name}: {rule}")]
    Rule {
        /// Name of the kernel.
        name: String,
        /// What it breaks.
        rule: String,
    },
    /// A language cannot express it.
    #[error("{name} cannot be written as {language}: {reason}")]
    Backend {
        /// Name of the kernel.
        name: String,
        /// SPIR-V or MSL.
        language: &'static str,
        /// What naga said.
        reason: String,
    },
}

/// What to compile a kernel to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Languages {
    /// Both.
    All,
    /// SPIR-V alone: the kernel needs what MSL does not have (cooperative matrices of 16 × 16).
    Spirv,
    /// MSL alone: the kernel needs what SPIR-V devices do not have (cooperative matrices of 8 × 8).
    Msl,
}

/// A compiled kernel.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// A SPIR-V 1.6 module with the entry point `main`; empty when it was not asked for.
    pub spirv: Vec<u32>,
    /// MSL 3.1 source; empty when it was not asked for.
    pub msl: String,
    /// The entry point in `msl`.
    pub msl_entry: String,
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// Storage buffers.
    pub bindings: u32,
    /// Bit `i` is set when binding `i` is declared `read_write`.
    pub written: u32,
    /// Bytes of parameters.
    pub params: u32,
    /// Bytes of each workgroup variable, in the order of Metal's threadgroup indices.
    pub threadgroup: Vec<u32>,
    /// It uses cooperative matrices.
    pub cooperative_matrix: bool,
}

/// Compiles one kernel.
///
/// # Errors
/// When the source does not compile, breaks a rule, or a language cannot express it.
pub fn compile(name: &str, source: &str, languages: Languages) -> Result<Compiled, Error> {
    let refused = |report: String| Error::Source { name: name.into(), report };
    let rule = |rule: String| Error::Rule { name: name.into(), rule };
    let module = naga::front::wgsl::parse_str(source)
        .map_err(|error| refused(error.emit_to_string_with_path(source, name)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info =
        validator.validate(&module).map_err(|error| refused(error.emit_to_string_with_path(source, name)))?;

    let [entry] = module.entry_points.as_slice() else {
        return Err(rule(format!("{} entry points; a kernel has one", module.entry_points.len())));
    };
    if entry.stage != ShaderStage::Compute || entry.name != "main" {
        return Err(rule(format!(
            "the entry point is '{}'; a kernel's is a compute shader named main",
            entry.name
        )));
    }
    let workgroup = entry.workgroup_size;
    let (bindings, written) = bindings(&module).map_err(rule)?;
    let params = params(&module).map_err(rule)?;
    let cooperative_matrix =
        module.types.iter().any(|(_, ty)| matches!(ty.inner, naga::TypeInner::CooperativeMatrix { .. }));
    let mut compiled = Compiled {
        spirv: Vec::new(),
        msl: String::new(),
        msl_entry: String::new(),
        workgroup,
        bindings,
        written,
        params,
        threadgroup: threadgroup(&module, &info),
        cooperative_matrix,
    };
    let failed = |language| move |reason| Error::Backend { name: name.into(), language, reason };
    if languages != Languages::Msl {
        compiled.spirv = spirv::write(&module, &info).map_err(failed("SPIR-V"))?;
    }
    if languages != Languages::Spirv {
        (compiled.msl, compiled.msl_entry) = msl::write(&module, &info, bindings).map_err(failed("MSL"))?;
    }
    Ok(compiled)
}

/// How many storage buffers there are, and which of them are written.
fn bindings(module: &Module) -> Result<(u32, u32), String> {
    let mut seen = 0_u32;
    let mut written = 0_u32;
    for (_, variable) in module.global_variables.iter() {
        let AddressSpace::Storage { access } = variable.space else { continue };
        let Some(binding) = variable.binding.filter(|b| b.group == 0 && b.binding < 32) else {
            return Err("storage buffers are in group 0, at bindings 0 to 31".into());
        };
        seen |= 1 << binding.binding;
        if access.contains(StorageAccess::STORE) {
            written |= 1 << binding.binding;
        }
    }
    if seen.wrapping_add(1).count_ones() > 1 {
        return Err(format!("bindings {seen:#b} have gaps; number them from 0"));
    }
    Ok((seen.count_ones(), written))
}

fn params(module: &Module) -> Result<u32, String> {
    let mut blocks = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::Immediate);
    let bytes = blocks.next().map_or(0, |(_, v)| module.types[v.ty].inner.size(module.to_ctx()));
    if blocks.next().is_some() {
        return Err("several var<immediate>; put all parameters in one struct".into());
    }
    if bytes > MAX_PARAMS {
        return Err(format!("{bytes} bytes of parameters; at most {MAX_PARAMS}"));
    }
    Ok(bytes)
}

/// Metal wants the length of each threadgroup argument, a multiple of 16 bytes.
fn threadgroup(module: &Module, info: &ModuleInfo) -> Vec<u32> {
    let used = info.get_entry_point(0);
    module
        .global_variables
        .iter()
        .filter(|(handle, v)| v.space == AddressSpace::WorkGroup && !used[*handle].is_empty())
        .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16))
        .collect()
}
