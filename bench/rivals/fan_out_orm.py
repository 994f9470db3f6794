"""A fan-out as the ORM's documentation would have it: an object for each row, a thousand in a commit."""

from datetime import datetime
from itertools import islice

import sqlalchemy
from sqlalchemy import DateTime, ForeignKey, Index, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

CHUNK = 1_000


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)


class Notification(Base):
    __tablename__ = "notification"
    __table_args__ = (Index("notification_unread", "person_id", "read_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    title: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    read_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def make_tables(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()


def notify_everyone(session: Session, title: str, expires_at: datetime) -> None:
    ids = iter(session.scalars(select(Person.id).order_by(Person.id)).all())
    while chunk := list(islice(ids, CHUNK)):
        session.add_all(Notification(person_id=person_id, title=title, expires_at=expires_at) for person_id in chunk)
        session.commit()
