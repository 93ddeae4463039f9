//! Rows of `resources` and `failures`.

use internal_api::paravisor::Failure;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Store, StoreError, Tx, decode, encode, from_column, sql, to_column};

/// A resource as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Id in lower case.
    pub key: String,
    /// Id as first written.
    pub id: String,
    /// Type in lower case, for example `microsoft.compute/virtualmachines`.
    pub kind: String,
    /// Subscription GUID in lower case.
    pub subscription: String,
    /// Key of its resource group; a group's own key for a group.
    pub group_key: String,
    /// Name as first written.
    pub name: String,
    /// Region.
    pub location: String,
    /// GUID of this life of the name.
    pub incarnation: String,
    /// What was asked for.
    pub desired: Value,
    /// Grows with every change of `desired`.
    pub generation: u64,
    /// Newest generation that was seen fulfilled.
    pub reached: u64,
    /// Shall go away.
    pub deleted: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub changed_at: i64,
}

/// What a new row needs.
#[derive(Clone, Debug)]
pub struct NewResource {
    /// Id as written.
    pub id: String,
    /// Type in lower case.
    pub kind: &'static str,
    /// Subscription GUID.
    pub subscription: String,
    /// Key of the resource group.
    pub group_key: String,
    /// Name.
    pub name: String,
    /// Region.
    pub location: String,
    /// GUID of this life.
    pub incarnation: String,
    /// What is asked for.
    pub desired: Value,
    /// 1 for resources that are done when they are written, else 0.
    pub reached: u64,
}

/// Why a generation failed, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRow {
    /// Which generation.
    pub generation: u64,
    /// Why.
    pub failure: Failure,
    /// Milliseconds since 1970.
    pub at: i64,
}

pub(super) fn resource(row: &SqliteRow) -> Result<Resource, StoreError> {
    let text = |column| row.get::<String, _>(column);
    Ok(Resource {
        key: text("key"),
        id: text("id"),
        kind: text("kind"),
        subscription: text("subscription"),
        group_key: text("group_key"),
        name: text("name"),
        location: text("location"),
        incarnation: text("incarnation"),
        desired: decode("a resource's wanted state", &text("desired"))?,
        generation: from_column(row.get("generation")),
        reached: from_column(row.get("reached")),
        deleted: row.get::<i64, _>("deleted") != 0,
        created_at: row.get("created_at"),
        changed_at: row.get("changed_at"),
    })
}

async fn by_key(connection: &mut SqliteConnection, key: &str) -> Result<Option<Resource>, StoreError> {
    let row = sqlx::query("SELECT * FROM resources WHERE key = ?")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(sql("reading a resource"))?;
    row.as_ref().map(resource).transpose()
}

async fn failure_of(
    connection: &mut SqliteConnection,
    incarnation: &str,
    generation: u64,
) -> Result<Option<FailureRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM failures WHERE incarnation = ? AND generation = ?")
        .bind(incarnation)
        .bind(to_column(generation))
        .fetch_optional(connection)
        .await
        .map_err(sql("reading a failure"))?;
    row.map(|row| {
        let failure = decode("a failure", row.get("failure"))?;
        Ok(FailureRow { generation, failure, at: row.get("at") })
    })
    .transpose()
}

impl Store {
    /// The resource with that key, also one that is being deleted.
    pub async fn resource(&self, key: &str) -> Result<Option<Resource>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(sql("waiting for a connection"))?;
        by_key(&mut connection, key).await
    }

    /// Why that generation failed, if it did.
    pub async fn failure(
        &self,
        incarnation: &str,
        generation: u64,
    ) -> Result<Option<FailureRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(sql("waiting for a connection"))?;
        failure_of(&mut connection, incarnation, generation).await
    }

    /// All resources of a type in a subscription, in order of their keys.
    pub async fn resources_of(&self, kind: &str, subscription: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE kind = ? AND subscription = ? ORDER BY key")
            .bind(kind)
            .bind(subscription)
            .fetch_all(&self.readers)
            .await
            .map_err(sql("listing resources"))?;
        rows.iter().map(resource).collect()
    }

    /// All resources of a type, whosever they are.
    pub async fn resources_of_kind(&self, kind: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE kind = ? ORDER BY key")
            .bind(kind)
            .fetch_all(&self.readers)
            .await
            .map_err(sql("listing a type"))?;
        rows.iter().map(resource).collect()
    }

    /// All resources of a subscription.
    pub async fn resources_of_subscription(&self, subscription: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE subscription = ? ORDER BY key")
            .bind(subscription)
            .fetch_all(&self.readers)
            .await
            .map_err(sql("listing a subscription"))?;
        rows.iter().map(resource).collect()
    }

    /// All resources in a group but the group itself.
    pub async fn resources_in(&self, group_key: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE group_key = ?1 AND key <> ?1 ORDER BY key")
            .bind(group_key)
            .fetch_all(&self.readers)
            .await
            .map_err(sql("listing a group"))?;
        rows.iter().map(resource).collect()
    }

    /// Groups that shall go away.
    pub async fn groups_to_delete(&self, group_kind: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE kind = ? AND deleted = 1")
            .bind(group_kind)
            .fetch_all(&self.readers)
            .await
            .map_err(sql("listing groups to delete"))?;
        rows.iter().map(resource).collect()
    }
}

impl Tx {
    /// The resource with that key.
    pub async fn resource(&mut self, key: &str) -> Result<Option<Resource>, StoreError> {
        by_key(self.connection(), key).await
    }

    /// The resource that a body of the same subscription refers to by its id. Others' resources do not exist for it.
    pub async fn referenced(
        &mut self,
        kind: &str,
        subscription: &str,
        id: &str,
    ) -> Result<Option<Resource>, StoreError> {
        let found = self.resource(&id.to_ascii_lowercase()).await?;
        Ok(found.filter(|found| {
            found.kind == kind && !found.deleted && found.subscription.eq_ignore_ascii_case(subscription)
        }))
    }

    /// Why that generation failed, if it did.
    pub async fn failure(
        &mut self,
        incarnation: &str,
        generation: u64,
    ) -> Result<Option<FailureRow>, StoreError> {
        failure_of(self.connection(), incarnation, generation).await
    }

    /// All resources of a type in a subscription.
    pub async fn resources_of(
        &mut self,
        kind: &str,
        subscription: &str,
    ) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE kind = ? AND subscription = ? ORDER BY key")
            .bind(kind)
            .bind(subscription)
            .fetch_all(self.connection())
            .await
            .map_err(sql("listing resources"))?;
        rows.iter().map(resource).collect()
    }

    /// Whether any subscription has a resource of that type and name, in any case.
    pub async fn is_name_taken(&mut self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM resources WHERE kind = ? AND lower(name) = ? LIMIT 1")
            .bind(kind)
            .bind(name.to_ascii_lowercase())
            .fetch_optional(self.connection())
            .await
            .map_err(sql("looking for a name"))?;
        Ok(row.is_some())
    }

    /// All resources in a group but the group itself.
    pub async fn resources_in(&mut self, group_key: &str) -> Result<Vec<Resource>, StoreError> {
        let rows = sqlx::query("SELECT * FROM resources WHERE group_key = ?1 AND key <> ?1 ORDER BY key")
            .bind(group_key)
            .fetch_all(self.connection())
            .await
            .map_err(sql("listing a group"))?;
        rows.iter().map(resource).collect()
    }

    /// Writes a new row at generation 1.
    pub async fn insert_resource(&mut self, new: &NewResource, now: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO resources (key, id, kind, subscription, group_key, name, location, incarnation, desired,
             generation, reached, created_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
        )
        .bind(new.id.to_ascii_lowercase())
        .bind(&new.id)
        .bind(new.kind)
        .bind(new.subscription.to_ascii_lowercase())
        .bind(&new.group_key)
        .bind(&new.name)
        .bind(&new.location)
        .bind(&new.incarnation)
        .bind(encode(&new.desired))
        .bind(to_column(new.reached))
        .bind(now)
        .bind(now)
        .execute(self.connection())
        .await
        .map_err(sql("writing a resource"))?;
        Ok(())
    }

    /// Replaces the wanted state and moves on to the next generation, which is returned. With `done`, a resource that
    /// had reached its generation has reached the new one too: the change needs nobody's work.
    pub async fn change_resource(
        &mut self,
        before: &Resource,
        desired: &Value,
        done: bool,
        now: i64,
    ) -> Result<u64, StoreError> {
        let generation = before.generation + 1;
        let reached = if done && before.reached == before.generation { generation } else { before.reached };
        sqlx::query(
            "UPDATE resources SET desired = ?, generation = ?, reached = ?, changed_at = ? WHERE key = ?",
        )
        .bind(encode(desired))
        .bind(to_column(generation))
        .bind(to_column(reached))
        .bind(now)
        .bind(&before.key)
        .execute(self.connection())
        .await
        .map_err(sql("changing a resource"))?;
        Ok(generation)
    }

    /// Replaces what the row says without a new generation: what was found out about it, not what was asked for.
    pub async fn set_desired(&mut self, key: &str, desired: &Value) -> Result<(), StoreError> {
        sqlx::query("UPDATE resources SET desired = ? WHERE key = ?")
            .bind(encode(desired))
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("noting what a resource has"))?;
        Ok(())
    }

    /// Says that a resource shall go away; returns the new generation.
    pub async fn mark_deleted(&mut self, before: &Resource, now: i64) -> Result<u64, StoreError> {
        let generation = before.generation + 1;
        sqlx::query("UPDATE resources SET deleted = 1, generation = ?, changed_at = ? WHERE key = ?")
            .bind(to_column(generation))
            .bind(now)
            .bind(&before.key)
            .execute(self.connection())
            .await
            .map_err(sql("marking a resource for deletion"))?;
        Ok(generation)
    }

    /// Notes that a generation was reached; an older one than noted changes nothing.
    pub async fn mark_reached(&mut self, key: &str, generation: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE resources SET reached = max(reached, min(?, generation)) WHERE key = ?")
            .bind(to_column(generation))
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("noting a reached generation"))?;
        Ok(())
    }

    /// Notes why a resource's generations up to `generation` will not be reached. The first reason of each stays.
    pub async fn mark_failed(
        &mut self,
        resource: &Resource,
        generation: u64,
        failure: &Failure,
        now: i64,
    ) -> Result<(), StoreError> {
        for unreached in resource.reached + 1..=generation {
            sqlx::query(
                "INSERT INTO failures (incarnation, generation, failure, at) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&resource.incarnation)
            .bind(to_column(unreached))
            .bind(encode(failure))
            .bind(now)
            .execute(self.connection())
            .await
            .map_err(sql("noting a failure"))?;
        }
        Ok(())
    }

    /// Removes a row and what hangs on it.
    pub async fn remove_resource(&mut self, key: &str) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM failures WHERE incarnation IN (SELECT incarnation FROM resources WHERE key = ?)",
        )
        .bind(key)
        .execute(self.connection())
        .await
        .map_err(sql("removing a resource's failures"))?;
        sqlx::query("DELETE FROM resources WHERE key = ?")
            .bind(key)
            .execute(self.connection())
            .await
            .map_err(sql("removing a resource"))?;
        Ok(())
    }
}
