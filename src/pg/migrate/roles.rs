//! Creates the roles that migrations grant rights to; where that is not allowed, a user replaces
//! them.
//!
//! Roles belong to the whole cluster, and creating one needs CREATEROLE. A database whose only user
//! lacks it works without them: that user owns the schema and so has every right. In a migration's
//! text the user's name stands in the place of each missing role. A grant to oneself changes
//! nothing, and a REVOKE from a missing role is followed by a new grant to the owner.

use refinery_core::{
    AsyncMigrate, Migration,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use tokio_postgres::{Client, Error, error::SqlState};

use crate::pg::schema::Schema;

/// Roles of Postrider, in the order in which the first migration names them.
const NAMES: [&str; 4] =
    ["postrider_producer", "postrider_consumer", "postrider_relay", "postrider_operator"];

/// Characters that a substitute user's name must not contain. In a migration they would end the
/// string or identifier that contains the name.
const UNFIT: [char; 4] = ['\'', '"', '%', '$'];

/// The roles of Postrider that are missing on this server, and the user that replaces them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roles {
    /// Missing roles; empty when every role exists.
    missing: Vec<&'static str>,
    user: String,
}

impl Roles {
    /// Creates the missing roles, as far as the session may.
    ///
    /// A user whose name cannot stand in a migration's text is not used as a substitute. The first
    /// migration then says what a DBA has to run.
    pub(super) async fn establish(client: &Client) -> Result<Self, Error> {
        let rows = client
            .query(
                "SELECT wanted, current_user::text FROM unnest($1::text[]) AS wanted
                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted)
                 ORDER BY array_position($1::text[], wanted)",
                &[&NAMES.as_slice()],
            )
            .await?;
        let mut roles = Self::default();
        for row in &rows {
            let (wanted, user): (&str, String) = (row.get(0), row.get(1));
            let Some(name) = NAMES.into_iter().find(|name| *name == wanted) else { continue };
            if !create(client, name).await? && !user.contains(UNFIT) {
                roles.missing.push(name);
                roles.user = user;
            }
        }
        Ok(roles)
    }

    /// The roles that do not exist and may not be created.
    pub(super) fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// The text of a migration, with the user in the place of each missing role.
    pub(super) fn apply(&self, sql: &str) -> String {
        self.missing.iter().fold(sql.to_owned(), |sql, name| replace(&sql, name, &self.user))
    }
}

/// Roles that exist and have no right in this schema. Each migration grants their rights, so these
/// were lost since. A dump that is restored where the roles do not exist loses all grants to them.
pub(super) async fn powerless(client: &Client, schema: &Schema) -> Result<Vec<String>, Error> {
    let statement = "SELECT r.rolname::text FROM pg_catalog.pg_roles AS r
        WHERE r.rolname = ANY ($1::text[]) AND NOT has_schema_privilege(r.oid, $2, 'USAGE')
        ORDER BY 1";
    let rows = client.query(statement, &[&NAMES.as_slice(), &schema.as_str()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether the role exists after an attempt to create it; another session may have created it.
async fn create(client: &Client, name: &str) -> Result<bool, Error> {
    match client.batch_execute(&format!("CREATE ROLE {name} NOLOGIN")).await {
        Ok(()) => Ok(true),
        Err(error) => match error.code() {
            Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION) => Ok(true),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Replaces a role's name in SQL by a user's name: within single quotes as a string, elsewhere as
/// an identifier. A role's name within a longer name or within double quotes stays, because a
/// schema can have that name.
fn replace(sql: &str, role: &str, user: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once(role) {
        text.push_str(before);
        let left = text.chars().next_back();
        let right = after.chars().next();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '"');
        match (left, right) {
            (Some('\''), Some('\'')) => text.push_str(user),
            _ if left.is_some_and(is_part) || right.is_some_and(is_part) => text.push_str(role),
            _ => {
                text.push('"');
                text.push_str(user);
                text.push('"');
            }
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Session that replaces missing roles in each migration before it runs, with [`Roles::apply`]. The
/// stored checksums are those of the text before that.
pub(super) struct Granting<'a> {
    pub(super) client: &'a mut Client,
    pub(super) roles: &'a Roles,
    /// The statements that give the owner of the schema everything in it.
    pub(super) own: String,
}

/// Statements for [`Granting::own`], in which `"postrider"` stands for the schema.
pub(super) const OWN: &str = "GRANT ALL ON SCHEMA \"postrider\" TO CURRENT_USER;
    GRANT ALL ON ALL TABLES IN SCHEMA \"postrider\" TO CURRENT_USER;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA \"postrider\" TO CURRENT_USER;
    GRANT ALL ON ALL FUNCTIONS IN SCHEMA \"postrider\" TO CURRENT_USER;";

impl AsyncTransaction for Granting<'_> {
    type Error = Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Error> {
        let transaction = self.client.transaction().await?;
        let mut count = 0;
        for query in queries {
            transaction.batch_execute(&self.roles.apply(query)).await?;
            count += 1;
        }
        if !self.roles.missing.is_empty() {
            transaction.batch_execute(&self.own).await?;
        }
        transaction.commit().await?;
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Granting<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, Error> {
        AsyncQuery::query(self.client, query).await
    }
}

impl AsyncMigrate for Granting<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_replaced_as_an_identifier_and_as_a_string_and_nowhere_else() {
        let sql = r#"GRANT SELECT ON "postrider_relay".x TO postrider_relay, postrider_operator;
            SELECT 'postrider_relay', postrider_relay_2, my_postrider_relay
            -- postrider_relay"#;
        let expected = r#"GRANT SELECT ON "postrider_relay".x TO "Ann B", postrider_operator;
            SELECT 'Ann B', postrider_relay_2, my_postrider_relay
            -- "Ann B""#;
        assert_eq!(replace(sql, "postrider_relay", "Ann B"), expected);
    }
}
