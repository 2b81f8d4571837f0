//! The configuration: what may be said, who said it, and what it comes to.
//!
//! - **One table** ([`keys`]) says of every key its type, its range, its other names and when it acts. The reader of
//!   files, the environment, the JSON Schema, the file that `init` writes and the page in `docs` are all made from
//!   it, so none of them can know a key that another does not.
//! - **Two stages**: what was typed, by whom and where ([`Sources`]), and what that means together
//!   ([`Configuration`]). The second is checked as a whole, and a change of it is a new one or nothing.
//! - **Later in this list goes before earlier**: default, preset, file, environment, argument, and what was changed
//!   while the program runs. Every value knows which of them it is from ([`Origin`]).
//! - **Nothing is skipped**: an unknown key, a value out of range, a pair that cannot be are errors with field, rule,
//!   value, cure and line ([`Problem`]), all of them at once.
//!
//! The tree of the file is our own over the events of a YAML parser, not `serde`'s: a derived reader stops at the first
//! surprise, forgets the line of what it could read, and cannot tell an absent key from one that says its default.

pub mod byte_size;
mod configuration;
mod document;
mod key;
mod keys;
mod kind;
mod layer;
mod nearest;
mod origin;
mod preset;
mod problem;
mod schema;
mod settings;
mod show;
mod sources;
mod table;
mod value;

pub use configuration::{Change, Configuration};
pub use key::{Acts, Key};
pub use keys::keys;
pub use kind::Kind;
pub use nearest::nearest;
pub use origin::Origin;
pub use preset::{PRESETS, Preset};
pub use problem::{ConfigError, Problem};
pub use schema::schema;
pub use settings::{
    Acceleration, AdminSettings, AutoRollback, EngineSettings, ModelSettings, Rollout, Secret,
    ServerSettings, Settings,
};
pub use show::template;
pub use sources::{ConfigFile, Sources};
pub use table::table;
pub use value::Value;
