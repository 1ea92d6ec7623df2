//! The types of a statement's parameters, read from its text.

use tokio_postgres::types::Type;

use super::error::QueryError;

/// The types of a statement's parameters, from the casts that follow them.
pub(super) fn parameter_types(sql: &str) -> Result<Vec<Type>, QueryError> {
    let code = without_comments(sql);
    let mut types: Vec<Option<Type>> = Vec::new();
    for (at, _) in code.match_indices('$') {
        let rest = code.get(at + 1..).unwrap_or_default();
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at(digits);
        let Some(index) = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1))
        else {
            continue;
        };
        if types.len() <= index {
            types.resize(index + 1, None);
        }
        let cast = rest.strip_prefix("::").and_then(cast_type);
        if let Some(slot) = types.get_mut(index).filter(|slot| slot.is_none()) {
            *slot = cast;
        }
    }
    let missing = |number: usize| QueryError::Untyped { number };
    types.into_iter().zip(1..).map(|(found, number)| found.ok_or_else(|| missing(number))).collect()
}

/// The statement without its comments, which may mention parameters too.
fn without_comments(sql: &str) -> String {
    let code = |line: &'_ str| line.split_once("--").map_or(line, |(code, _)| code).to_owned();
    sql.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// The type that a cast names.
fn cast_type(text: &str) -> Option<Type> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
    let end = text.find(|letter: char| !is_name(letter)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_array = rest.starts_with("[]");
    let (scalar, array) = match name.trim_start_matches("pg_catalog.") {
        "text" => (Type::TEXT, Type::TEXT_ARRAY),
        "bigint" | "int8" => (Type::INT8, Type::INT8_ARRAY),
        "integer" | "int" | "int4" => (Type::INT4, Type::INT4_ARRAY),
        "smallint" | "int2" => (Type::INT2, Type::INT2_ARRAY),
        "boolean" | "bool" => (Type::BOOL, Type::BOOL_ARRAY),
        "float8" => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        "timestamptz" => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        "uuid" => (Type::UUID, Type::UUID_ARRAY),
        "jsonb" => (Type::JSONB, Type::JSONB_ARRAY),
        "json" => (Type::JSON, Type::JSON_ARRAY),
        "bytea" => (Type::BYTEA, Type::BYTEA_ARRAY),
        _ => return None,
    };
    Some(if is_array { array } else { scalar })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn parameters_have_the_types_of_their_first_casts() {
        let sql = "-- $4 is no parameter\nSELECT $1::text, $2, $2::bigint[], $3::text::pg_snapshot";
        let types = parameter_types(sql).unwrap();
        assert_eq!(types, [Type::TEXT, Type::INT8_ARRAY, Type::TEXT]);
        let error = parameter_types("SELECT $1::text, $2").unwrap_err();
        assert!(error.to_string().contains("$2"), "{error}");
    }

    #[test]
    fn every_statement_says_the_types_of_its_parameters() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut seen = 0;
        let mut directories = vec![root.join("outbox"), root.join("pg")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "sql") {
                    seen += 1;
                    let types = parameter_types(&fs::read_to_string(&path).unwrap());
                    assert!(types.is_ok(), "{}: {types:?}", path.display());
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }
}
