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
        let bus = Arc::clone(&self.bus);
        self.runtime.spawn(async move {
            loop {
                let next = tokio::select! {
                    next = follow.next(&bus) => next,
                    () = tx.closed() => break,
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
