//! Every GPU kernel in both languages: what the compiler says, what the Khronos validator says, and what is generated.

#[path = "../src/manifest.rs"]
#[expect(dead_code, reason = "the build script reads more of it")]
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bessemer_kernels::shaders;
use bessemer_wgsl::{Compiled, Languages, compile};
use manifest::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compiled(source: &Source) -> Compiled {
    let text = source.text(&root().join("src")).unwrap();
    compile(&source.name, &text, source.languages).unwrap_or_else(|error| panic!("{error}"))
}

/// Applies `check` to every kernel, on all processors, and gathers what it complains of.
fn complaints(check: impl Fn(&Source) -> Result<(), String> + Sync) -> Vec<String> {
    let sources = manifest::sources();
    assert!(!sources.is_empty());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let check = &check;
        let shares: Vec<_> = sources
            .chunks(sources.len().div_ceil(threads))
            .map(|share| {
                scope.spawn(move || share.iter().filter_map(|source| check(source).err()).collect::<Vec<_>>())
            })
            .collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    })
}

#[test]
fn every_kernel_compiles_for_its_languages_within_the_limits() {
    let complaints = complaints(|source| {
        let kernel = compiled(source);
        let complain = |rule: String| Err(format!("{}: {rule}", source.name));
        let expected = match source.languages {
            Languages::All => (true, true),
            Languages::Spirv => (true, false),
            Languages::Msl => (false, true),
        };
        if (!kernel.spirv.is_empty(), !kernel.msl.is_empty()) != expected {
            return complain(format!("is for {:?}", source.languages));
        }
        if kernel.params > 128 {
            return complain(format!("{} bytes of parameters", kernel.params));
        }
        if kernel.bindings + 2 > 31 {
            return complain(format!("{} buffers; Metal has 31, two of which are ours", kernel.bindings));
        }
        let threads: u32 = kernel.workgroup.iter().product();
        // More than 256 only by the limit of the device (`GpuLimits::workgroup_threads`); more than this is nobody's.
        if threads > 1024 {
            return complain(format!("{threads} threads"));
        }
        // Apple's GPUs have 32 KiB, and so has the software driver of the tests. What is for neither is chosen by the
        // memory that a GPU has.
        let most = if source.languages == Languages::Spirv { 48 << 10 } else { 32 << 10 };
        let shared: u32 = kernel.threadgroup.iter().sum();
        if shared > most {
            return complain(format!("{shared} bytes of workgroup memory"));
        }
        Ok(())
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn names_are_unique_and_those_in_the_program() {
    let sources = manifest::sources();
    let names: BTreeSet<_> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names.len(), sources.len());
    let apple = cfg!(target_vendor = "apple");
    let absent = if apple { Languages::Spirv } else { Languages::Msl };
    let here: Vec<_> = sources.iter().filter(|source| source.languages != absent).collect();
    assert_eq!(
        shaders::all().iter().map(|shader| shader.name).collect::<Vec<_>>(),
        here.iter().map(|source| source.name.as_str()).collect::<Vec<_>>()
    );
    for shader in shaders::all() {
        assert_eq!((shader.spirv.is_empty(), shader.msl.is_empty()), (apple, !apple), "{}", shader.name);
        assert!(std::ptr::eq(shaders::find(shader.name).unwrap(), shader));
    }
}

/// Version of the installed `spirv-val`, as year and number; `None` when there is none.
fn validator() -> Option<(u32, u32)> {
    let output = Command::new("spirv-val").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.strip_prefix("SPIRV-Tools v")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[test]
fn the_khronos_validator_accepts_every_module() {
    let Some(version) = validator() else {
        let ci = cfg!(target_os = "linux") && std::env::var("CI").as_deref() == Ok("true");
        assert!(!ci, "spirv-val is not installed (Debian: spirv-tools)");
        eprintln!("skipped: no spirv-val");
        return;
    };
    // The first version that knows SPV_KHR_cooperative_matrix.
    let knows_matrices = version >= (2023, 4);
    let complaints = complaints(|source| {
        let kernel = compiled(source);
        if kernel.spirv.is_empty() {
            return Ok(());
        }
        if kernel.cooperative_matrix && !knows_matrices {
            eprintln!(
                "skipped: {} has cooperative matrices, which spirv-val {version:?} does not know",
                source.name
            );
            return Ok(());
        }
        validate(&kernel.spirv).map_err(|error| format!("{}: {error}", source.name))
    });
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn validate(module: &[u32]) -> Result<(), String> {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", "vulkan1.3", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = module.iter().flat_map(|word| word.to_le_bytes()).collect();
    // A validator that has seen enough stops reading; its exit status tells.
    let _ = child.stdin.take().unwrap().write_all(&bytes);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_validator_would_refuse_a_broken_module() {
    if validator().is_some() {
        let source = &manifest::sources()[0];
        let mut module = compiled(source).spirv;
        assert_eq!(validate(&module), Ok(()));
        module.truncate(module.len() - 3);
        validate(&module).unwrap_err();
    }
}

/// Kernels by the file that has their `main`, and of each the variant that is shown: 4-bit weights in groups of 64
/// where there are such.
fn shown() -> BTreeMap<String, Source> {
    let mut shown: BTreeMap<String, Source> = BTreeMap::new();
    let rank = |source: &Source| (!source.name.contains("affine4_64"), source.name.clone());
    for source in manifest::sources().into_iter().filter(|source| source.languages != Languages::Spirv) {
        let body = source.parts[source.parts.len() - 1].trim_end_matches(".wgsl").replace('/', "_");
        if shown.get(&body).is_none_or(|other| rank(&source) < rank(other)) {
            shown.insert(body, source);
        }
    }
    shown
}

/// The text that a Mac compiles, to be read as a difference: after a change of a kernel or of naga run
/// `INSTA_UPDATE=always cargo test -p bessemer-kernels --test shaders`.
#[test]
fn generated_msl() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let folder = root().join("tests/snapshots");
    let mut left: BTreeSet<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    let mut different = Vec::new();
    for (body, source) in shown() {
        left.remove(&folder.join(format!("{body}.snap")));
        let msl = compiled(&source).msl;
        settings.set_description(source.name.clone());
        let same = settings
            .bind(|| std::panic::catch_unwind(|| insta::assert_snapshot!(body.as_str(), msl)).is_ok());
        if !same {
            different.push(source.name);
        }
    }
    assert!(different.is_empty(), "MSL of {different:?} has changed: review it");
    left.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    assert!(left.is_empty(), "snapshots of kernels that are gone: {left:?}");
}
