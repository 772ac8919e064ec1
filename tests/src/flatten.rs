//! JSON as lines of text, so that two states can be compared line by line.

use serde_json::Value;

/// One line for each leaf: `mtu = 1500`, `linkinfo.info_kind = "bridge"`.
pub(crate) fn flatten(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk(String::new(), value, &mut lines);
    lines
}

fn walk(path: String, value: &Value, lines: &mut Vec<String>) {
    let join = |key: &str| {
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    };
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                walk(join(key), value, lines);
            }
        }
        Value::Array(values) if values.iter().any(|value| value.is_object()) => {
            for (index, value) in values.iter().enumerate() {
                walk(join(&index.to_string()), value, lines);
            }
        }
        leaf => lines.push(format!("{path} = {leaf}")),
    }
}

/// Removes entries from all objects within.
pub(crate) fn strip(value: &mut Value, volatile: &dyn Fn(&str) -> bool) {
    match value {
        Value::Object(entries) => {
            entries.retain(|key, _| !volatile(key));
            entries.values_mut().for_each(|value| strip(value, volatile));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, volatile)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_leaf_is_a_line() {
        let value = json!({"a": {"b": 1, "c": []}, "flags": ["UP", "LOOPBACK"], "n": [{"x": "y"}]});
        assert_eq!(
            flatten(&value),
            ["a.b = 1", "a.c = []", "flags = [\"UP\",\"LOOPBACK\"]", "n.0.x = \"y\""]
        );
    }

    #[test]
    fn strip_reaches_all_depths() {
        let mut value = json!({"t": 1, "a": [{"t": 2, "k": {"t": 3, "z": 4}}]});
        strip(&mut value, &|key| key == "t");
        assert_eq!(value, json!({"a": [{"k": {"z": 4}}]}));
    }
}
