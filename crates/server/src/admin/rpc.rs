//! `/rpc`: JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>).
//!
//! - **One call or a batch** of them, which are made in their order. A call without `id` is a notification: it is made and not
//!   answered. Where nothing is to be answered, the status is 204.
//! - **What JSON-RPC has a code for is 200** with that code; what HTTP refuses before (token, origin, length, declaration) has
//!   HTTP's status.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bessemer_config::{Change, nearest};
use serde_json::{Value, json};

use super::runtime::{Snapshot, info};
use super::{Admin, BODY_TIMEOUT, MAX_BODY_BYTES};
use crate::body;
use crate::control::{Control, ControlError};
use crate::openai::error::ApiError;
use crate::openai::fields::shortened;

/// The methods.
pub const METHODS: [&str; 3] = ["runtime.update_metal_config", "runtime.get_metal_stats", "runtime/info"];

/// Calls of a batch at most.
pub const MAX_BATCH: usize = 64;

const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const INTERNAL_ERROR: i64 = -32_603;
/// Of the range that is the server's own: try again later.
const NOT_NOW: i64 = -32_000;

/// A body.
#[derive(Debug, PartialEq)]
pub enum Body {
    /// One call, or something that is none.
    One(Result<Call, Failure>),
    /// Several.
    Batch(Vec<Result<Call, Failure>>),
}

/// A call.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// Absent in a notification.
    pub id: Option<Value>,
    /// Whatever the client has written.
    pub method: String,
    /// An object or a list.
    pub params: Option<Value>,
}

/// Why a call has no result.
#[derive(Debug, PartialEq)]
pub struct Failure {
    /// `null` where it is not known.
    pub id: Value,
    /// As the specification numbers it.
    pub code: i64,
    /// What a person reads.
    pub message: String,
    /// All problems with what was asked for.
    pub data: Option<Box<Value>>,
}

/// `POST /rpc`.
pub(super) async fn serve(State(admin): State<Arc<Admin>>, request: Request) -> Result<Response, ApiError> {
    let bytes = body::declared(request, MAX_BODY_BYTES, BODY_TIMEOUT).await?;
    let answer = match parse(&bytes) {
        Body::One(call) => answer(&admin.control, call).await,
        Body::Batch(calls) => {
            let mut answers = Vec::new();
            for call in calls {
                answers.extend(answer(&admin.control, call).await);
            }
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
    };
    Ok(match answer {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Takes a body apart.
pub fn parse(bytes: &[u8]) -> Body {
    let failure =
        |code, message: String| Body::One(Err(Failure { id: Value::Null, code, message, data: None }));
    match serde_json::from_slice(bytes) {
        Err(error) => {
            failure(PARSE_ERROR, format!("body: must be JSON in UTF-8, but reading it failed with: {error}"))
        }
        Ok(Value::Array(calls)) if calls.is_empty() => {
            failure(INVALID_REQUEST, "body: a batch must have at least one call, but it is empty".into())
        }
        Ok(Value::Array(calls)) if calls.len() > MAX_BATCH => failure(
            INVALID_REQUEST,
            format!(
                "body: a batch must have at most {MAX_BATCH} calls, but it has {}. Send several",
                calls.len()
            ),
        ),
        Ok(Value::Array(calls)) => Body::Batch(calls.into_iter().map(call).collect()),
        Ok(value) => Body::One(call(value)),
    }
}

fn call(value: Value) -> Result<Call, Failure> {
    let invalid = |id: Option<&Value>, message: &str| Failure {
        id: id.cloned().unwrap_or_default(),
        code: INVALID_REQUEST,
        message: message.to_owned(),
        data: None,
    };
    let Value::Object(mut members) = value else {
        return Err(invalid(
            None,
            "call: must be an object, as in {\"jsonrpc\": \"2.0\", \"method\": \"runtime/info\", \"id\": 1}",
        ));
    };
    let id = members.remove("id");
    if id.as_ref().is_some_and(|id| !matches!(id, Value::String(_) | Value::Number(_) | Value::Null)) {
        return Err(invalid(None, "id: must be a text, a number or null"));
    }
    if members.get("jsonrpc") != Some(&Value::from("2.0")) {
        return Err(invalid(id.as_ref(), "jsonrpc: must be \"2.0\". Add it to the call"));
    }
    let Some(Value::String(method)) = members.remove("method") else {
        return Err(invalid(id.as_ref(), "method: must be a text. Add it to the call"));
    };
    let params = members.remove("params");
    if params.as_ref().is_some_and(|params| !params.is_object() && !params.is_array()) {
        return Err(invalid(id.as_ref(), "params: must be an object or a list. Leave it out, or write {}"));
    }
    Ok(Call { id, method, params })
}

/// Makes a call; `None` for a notification, whatever came of it.
async fn answer(control: &Control, call: Result<Call, Failure>) -> Option<Value> {
    let (id, result) = match call {
        Err(failure) => (Some(failure.id.clone()), Err(failure)),
        Ok(call) => (call.id.clone(), make(control, call).await),
    };
    if let (None, Err(failure)) = (&id, &result) {
        tracing::warn!(code = failure.code, message = failure.message, "a notification failed");
    }
    let id = id?;
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
        Err(Failure { code, message, data, .. }) => {
            let mut error = json!({"code": code, "message": message});
            if let Some(data) = data {
                error["data"] = *data;
            }
            json!({"jsonrpc": "2.0", "error": error, "id": id})
        }
    })
}

async fn make(control: &Control, call: Call) -> Result<Value, Failure> {
    let id = call.id.unwrap_or_default();
    let failure = |code, message, data| Failure { id: id.clone(), code, message, data };
    match call.method.as_str() {
        "runtime.update_metal_config" => {
            let config = config_of(call.params).map_err(|message| failure(INVALID_PARAMS, message, None))?;
            let applied = control.patch(json!({"metal_optimizations": config})).await.map_err(|error| {
                let (code, data) = classify(&error);
                failure(code, error.to_string().replace('\n', "; "), data)
            })?;
            let changed: Value = applied.changes.iter().map(Change::json).collect();
            let config = applied.configuration.json()["metal_optimizations"].take();
            Ok(json!({"config": config, "changed": changed}))
        }
        "runtime.get_metal_stats" => {
            no_params(call.params).map_err(|message| failure(INVALID_PARAMS, message, None))?;
            match Snapshot::take(control).metal_stats(control) {
                Value::Null => Err(failure(NOT_NOW, ControlError::Loading.to_string(), None)),
                stats => Ok(stats),
            }
        }
        "runtime/info" => {
            no_params(call.params).map_err(|message| failure(INVALID_PARAMS, message, None))?;
            Ok(info(control))
        }
        other => {
            let cure = match nearest(other, METHODS.into_iter()) {
                Some(method) => format!("Did you mean {method}?"),
                None => format!("The methods are {}", METHODS.join(", ")),
            };
            let message = format!("method: there is no {}. {cure}", shortened(other));
            Err(failure(METHOD_NOT_FOUND, message, None))
        }
    }
}

/// The change that a call asks for: `{"config": {…}}`, or `[{…}]`.
pub fn config_of(params: Option<Value>) -> Result<Value, String> {
    let config = match params {
        Some(Value::Object(mut members)) => {
            let config = members.remove("config");
            if let Some(name) = members.keys().next() {
                let name = shortened(name);
                return Err(format!(
                    "{name}: is no parameter of this method. Put the settings below `config`"
                ));
            }
            config
        }
        Some(Value::Array(mut items)) if items.len() == 1 => items.pop(),
        _ => None,
    };
    match config {
        Some(config @ Value::Object(_)) => Ok(config),
        _ => Err("config: must be an object with settings, as in {\"config\": {\"enabled\": false}}".into()),
    }
}

fn no_params(params: Option<Value>) -> Result<(), String> {
    let none = match &params {
        None => true,
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if none { Ok(()) } else { Err("params: this method takes none. Leave it out".into()) }
}

fn classify(error: &ControlError) -> (i64, Option<Box<Value>>) {
    match error {
        ControlError::Config(error) => {
            let problem = |problem: &bessemer_config::Problem| json!({"field": problem.field, "given": problem.given, "rule": problem.rule, "cure": problem.cure});
            (INVALID_PARAMS, Some(Box::new(error.problems.iter().map(problem).collect())))
        }
        ControlError::Loading | ControlError::Busy | ControlError::Ended => (NOT_NOW, None),
        ControlError::Engine(_) => (INTERNAL_ERROR, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i64 {
        match parse(body.as_bytes()) {
            Body::One(Err(failure)) => failure.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bodies_are_calls_notifications_or_batches() {
        let body = parse(br#"{"jsonrpc": "2.0", "method": "a", "params": [1], "id": "x"}"#);
        let call = Call { id: Some("x".into()), method: "a".into(), params: Some(json!([1])) };
        assert_eq!(body, Body::One(Ok(call)));
        let Body::Batch(calls) = parse(br#"[{"jsonrpc": "2.0", "method": "a"}, 1]"#) else { panic!() };
        assert!(calls[0].as_ref().is_ok_and(|call| call.id.is_none()));
        assert!(calls[1].as_ref().is_err_and(|failure| failure.code == INVALID_REQUEST));
        for (body, expected) in [
            ("", PARSE_ERROR),
            ("{", PARSE_ERROR),
            ("[]", INVALID_REQUEST),
            ("1", INVALID_REQUEST),
            ("{}", INVALID_REQUEST),
            (r#"{"jsonrpc": "1.0", "method": "a", "id": 1}"#, INVALID_REQUEST),
            (r#"{"jsonrpc": "2.0", "method": 1, "id": 1}"#, INVALID_REQUEST),
            (r#"{"jsonrpc": "2.0", "method": "a", "params": "x", "id": 1}"#, INVALID_REQUEST),
            (r#"{"jsonrpc": "2.0", "method": "a", "id": {}}"#, INVALID_REQUEST),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
        let many = format!("[{}]", vec!["1"; MAX_BATCH + 1].join(","));
        assert_eq!(code(&many), INVALID_REQUEST);
    }

    #[test]
    fn settings_come_below_config() {
        assert_eq!(config_of(Some(json!({"config": {"enabled": false}}))), Ok(json!({"enabled": false})));
        assert_eq!(config_of(Some(json!([{"enabled": false}]))), Ok(json!({"enabled": false})));
        for wrong in [None, Some(json!({})), Some(json!([])), Some(json!([1])), Some(json!({"config": null}))]
        {
            assert!(config_of(wrong).unwrap_err().starts_with("config: must be an object"));
        }
        let message = config_of(Some(json!({"enabled": false}))).unwrap_err();
        assert_eq!(message, "enabled: is no parameter of this method. Put the settings below `config`");
    }
}
