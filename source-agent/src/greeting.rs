//! The first words with a destination, for those who want nothing more, or something else than a move.

use crate::bulk::Moved;
use crate::connection::Line;
use crate::ending::Ending;
use crate::news::{self, News};
use link::Connection;
use protocol::limits::HELLO_WAIT;
use protocol::version::Hello;
use protocol::{Message, MigrationId};

/// What the destination says of itself.
pub(crate) async fn exchange(
    connection: &Connection,
    id: MigrationId,
    ours: &Hello,
) -> Result<Hello, Ending> {
    let (post, mut inbox) = news::queue();
    let mut line = Line::open(connection.clone(), id, 1, post, Moved::default()).await?;
    line.send(Message::Hello(ours.clone())).await?;
    let heard = tokio::time::timeout(HELLO_WAIT, inbox.recv()).await;
    line.leave().await;
    match heard {
        Ok(Some(News::Heard { message: Message::Hello(theirs), .. })) => Ok(theirs),
        Ok(Some(News::Lost { cause, .. })) => Err(Ending::Failed(vec![cause])),
        _ => Err(Ending::Failed(vec![format!("it did not say what it is within {HELLO_WAIT:?}")])),
    }
}
