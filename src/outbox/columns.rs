//! Inserts lists of columns that several statements share into the text of a statement.
//!
//! A statement's file has `o.* /* columns event $6::integer */` where the list belongs. So the file
//! as it stands is valid SQL, which returns all columns of the table. `columns/event.sql` has the
//! list; `$n` in it becomes the parameter that the statement names.

/// For each list of columns: the text that stands for it in a statement's file, and the list
/// itself.
const LISTS: [(&str, &str); 2] = [
    ("o.* /* columns event", include_str!("columns/event.sql")),
    ("l.* /* columns letter", include_str!("columns/letter.sql")),
];

/// The text of a statement, with the lists of columns that it refers to.
pub fn with_columns(sql: &str) -> String {
    LISTS.iter().fold(sql.to_owned(), |sql, (reference, list)| {
        let Some((before, rest)) = sql.split_once(reference) else { return sql };
        let Some((parameter, after)) = rest.split_once("*/") else { return sql };
        let lines = list.lines().filter(|line| !line.starts_with("--"));
        let list = lines.collect::<Vec<_>>().join("\n").replace("$n", parameter.trim());
        format!("{before}{list}{after}")
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{event::Filter, outbox::filtered::with_filter};

    #[test]
    fn a_list_stands_where_a_statement_refers_to_it() {
        let page = with_columns(include_str!("sql/read_page.sql"));
        assert!(page.contains("SELECT o.seq, o.event_id"), "{page}");
        assert!(page.contains("THEN o.payload_binary END AS payload_binary\nFROM ("), "{page}");
        assert!(page.contains("<= $6::integer"), "{page}");
        let letters = with_columns(include_str!("sql/read_letter.sql"));
        assert!(letters.contains("SELECT l.id, l.relay"), "{letters}");
        assert!(letters.contains("l.payload_size,\n"), "{letters}");
        assert_eq!(with_columns("SELECT o.* FROM o"), "SELECT o.* FROM o");
    }

    /// A reference with another spelling would leave all columns of the table in the statement.
    #[test]
    fn no_reference_stays_in_a_statement() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox/sql");
        let mut references = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let sql = fs::read_to_string(entry.unwrap().path()).unwrap();
            references += usize::from(sql.contains("/* columns "));
            let whole = with_filter(&with_columns(&sql), &Filter::default());
            assert!(!whole.contains("/*") && !whole.contains("$n"), "{whole}");
        }
        assert_eq!(references, 10);
    }
}
