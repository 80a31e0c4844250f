//! JSON text in fio's layout, which line-oriented scripts rely on.
//!
//! Data flow: `serde_json` tree -> two blanks per level, `"key" : value`, floats with six decimals.
//!
//! Not here: which keys there are (`json`).

use serde_json::Value;

/// The tree as a document that ends with a newline.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text.push('\n');
    text
}

fn write_value(text: &mut String, value: &Value, level: usize) {
    match value {
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| (Some(key), value));
            write_members(text, ['{', '}'], members, level);
        }
        Value::Array(list) => {
            write_members(text, ['[', ']'], list.iter().map(|value| (None, value)), level);
        }
        // fio prints floats with `%f`, and consumers with typed fields need ints without a point.
        Value::Number(number) if number.is_f64() => {
            text.push_str(&format!("{:.6}", number.as_f64().unwrap_or(0.0)));
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// Between the brackets of an empty list fio leaves an empty line.
fn write_members<'a>(
    text: &mut String,
    [open, close]: [char; 2],
    members: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
    level: usize,
) {
    text.push(open);
    text.push('\n');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            text.push_str(",\n");
        }
        indent(text, level + 1);
        if let Some(key) = key {
            text.push_str(&Value::from(key.as_str()).to_string());
            text.push_str(" : ");
        }
        write_value(text, value, level + 1);
    }
    text.push('\n');
    indent(text, level);
    text.push(close);
}

fn indent(text: &mut String, level: usize) {
    text.extend(std::iter::repeat_n("  ", level));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tree_is_laid_out_as_fio_does() {
        let value = json!({"a": 1, "b": 0.5, "list": [{"q\"": "x\n"}], "none": []});
        let expected = "{\n  \"a\" : 1,\n  \"b\" : 0.500000,\n  \"list\" : [\n    {\n      \
                        \"q\\\"\" : \"x\\n\"\n    }\n  ],\n  \"none\" : [\n\n  ]\n}\n";
        assert_eq!(document(&value), expected);
        assert_eq!(serde_json::from_str::<Value>(&document(&value)).unwrap(), value);
    }
}
