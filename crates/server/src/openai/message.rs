//! The messages of a dialogue, checked and brought into the form that chat templates read.
//!
//! - **Content is one string** for a template: text parts are joined as they are; other parts are refused, since
//!   leaving an image out gives a wrong answer.
//! - **`developer` becomes `system`**: OpenAI renamed the role, open models were trained on the old name.
//! - **Tools are refused** (role `tool`, `tool_calls`) as long as they are not supported at all.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::passive::MESSAGE;

/// Checks the messages of `path` and gives them as a template's `messages`.
pub fn messages(path: &str, items: Vec<Value>) -> Result<Value, ApiError> {
    if items.is_empty() {
        return Err(wrong(path, "at least one message", &Value::Array(items)));
    }
    let each = |(index, item)| message(Fields::new(item, format!("{path}[{index}]"))?);
    items.into_iter().enumerate().map(each).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn message(mut fields: Fields) -> Result<Value, ApiError> {
    let path = fields.path("role");
    let role = match fields.required("role")? {
        Value::String(role) => role,
        other => return Err(wrong(&path, "a string", &other)),
    };
    let role = match role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => {
            let message = format!("{path}: tools are not supported by this server, but `{role}` was given");
            return Err(ApiError::unsupported(path, message));
        }
        _ => {
            let rule = "`system`, `developer`, `user` or `assistant`";
            return Err(wrong(&path, rule, &Value::String(role)));
        }
    };
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    let path = fields.path("content");
    message.insert("content".to_owned(), Value::String(content(&path, fields.take("content"))?));
    if let Some(name) = fields.string("name")? {
        message.insert("name".to_owned(), Value::String(name));
    }
    if role == "assistant"
        && let Some(reasoning) = fields.string("reasoning_content")?
    {
        message.insert("reasoning_content".to_owned(), Value::String(reasoning));
    }
    fields.finish(&[MESSAGE])?;
    Ok(Value::Object(message))
}

fn content(path: &str, value: Option<Value>) -> Result<String, ApiError> {
    match value {
        None => Err(ApiError::missing(path)),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => parts
            .into_iter()
            .enumerate()
            .map(|(index, part)| text_part(Fields::new(part, format!("{path}[{index}]"))?))
            .collect(),
        Some(other) => Err(wrong(path, "a string or a list of parts", &other)),
    }
}

fn text_part(mut fields: Fields) -> Result<String, ApiError> {
    let path = fields.path("type");
    match fields.required("type")? {
        Value::String(kind) if kind == "text" => {}
        Value::String(kind) => {
            let message = format!(
                "{path}: only `text` parts are supported by this server, but {} was given. Leave the part out",
                super::fields::shown(&Value::String(kind))
            );
            return Err(ApiError::unsupported(path, message));
        }
        other => return Err(wrong(&path, "a string", &other)),
    }
    let text = fields.string("text")?.ok_or_else(|| ApiError::missing(fields.path("text")))?;
    fields.finish(&[])?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(items: Value) -> Result<Value, String> {
        let Value::Array(items) = items else { panic!("not a list") };
        messages("messages", items).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn templates_get_plain_strings() {
        let given = json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": []},
        ]);
        let wanted = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "ab", "name": "Ann"},
            {"role": "assistant", "content": "c"},
        ]);
        assert_eq!(read(given), Ok(wanted));
    }

    #[test]
    fn errors_have_the_path() {
        let table = [
            (json!([]), "messages: must be at least one message"),
            (json!([3]), "messages[0]: must be an object"),
            (json!([{"role": "user"}]), "messages[0].content: is required"),
            (json!([{"content": "a"}]), "messages[0].role: is required"),
            (json!([{"role": "bot", "content": "a"}]), "messages[0].role: must be `system`"),
            (json!([{"role": "tool", "content": "a"}]), "messages[0].role: tools are not supported"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
                "messages[0].content[0].type: only `text` parts",
            ),
            (
                json!([{"role": "user", "content": "a", "contnet": "b"}]),
                "messages[0].contnet: is no field of this request. Did you mean `content`?",
            ),
            (
                json!([{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}]),
                "messages[0].tool_calls: is not supported",
            ),
        ];
        for (given, wanted) in table {
            let message = read(given).unwrap_err();
            assert!(message.starts_with(wanted), "{message}");
        }
    }
}
