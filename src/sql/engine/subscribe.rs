//! `SUBSCRIBE TO view`: what holds, then each change, as long as somebody reads.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::statements::BACKLOG;
use super::{Engine, Outcome};
use crate::sql::batch::Follow;
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::{Kind, Subscribe};

impl Engine {
    pub(super) async fn subscribe(self: &Arc<Self>, subscribe: &Subscribe) -> Result<Outcome, SqlError> {
        let entry = {
            let catalog = self.catalog.read();
            match catalog.find_kind(Some(Kind::View), &subscribe.view) {
                Ok(entry) if entry.kind == Kind::PlainView => {
                    let message = format!("view \"{}\" is not materialized, so nothing is kept of it that changes", entry.name);
                    let hint = format!("write SELECT .. FROM {} EMIT CHANGES, or CREATE MATERIALIZED VIEW", subscribe.view);
                    return Err(SqlError::new(Code::NoSuchName, message).at(subscribe.view.place).hint(hint));
                }
                Ok(entry) => Arc::clone(entry),
                Err(error) if catalog.relation(&subscribe.view.text).is_some() => {
                    let hint = format!("write SELECT .. FROM {} EMIT CHANGES", subscribe.view);
                    return Err(SqlError::new(Code::NoSuchName, error.message).at(subscribe.view.place).hint(hint));
                }
                Err(error) => return Err(error),
            }
        };
        let mut follow = Follow::open(&entry, subscribe, &self.bus).await?;
        let schema = follow.schema();
        let (tx, rows_rx) = mpsc::channel(BACKLOG);
        let (bus, mut changed) = (Arc::clone(&self.bus), self.views_changed.subscribe());
        // The engine is not held: it can be closed while somebody follows.
        let engine = Arc::downgrade(self);
        let is_there = move || {
            let engine = engine.upgrade()?;
            let catalog = engine.catalog.read();
            catalog.get(Kind::View, &entry.name).filter(|now| (now.version, now.created) == (entry.version, entry.created)).map(|_| ())
        };
        let gone = SqlError::new(Code::NoSuchName, format!("view \"{}\" was dropped or replaced", subscribe.view)).hint("subscribe again");
        self.runtime.spawn(async move {
            loop {
                // What has been begun to be read is read to its end: half of it would be told twice.
                let mut next = std::pin::pin!(follow.next(&bus));
                let next = loop {
                    tokio::select! {
                        // What was put in the view's place has other offsets: it must not be taken for it.
                        biased;
                        () = tx.closed() => return,
                        told = changed.changed() => if told.is_err() || is_there().is_none() {
                            break Err(gone.clone());
                        },
                        next = &mut next => break next,
                    }
                };
                let last = next.is_err();
                if tx.send(next).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(Outcome::Stream { schema, rows_rx })
    }
}
