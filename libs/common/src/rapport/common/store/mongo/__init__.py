"""The store on MongoDB 6.0 or later, by PyMongo's asyncio client or by Motor."""

from rapport.common.store.mongo.store import MongoStore, open_mongo

__all__ = ["MongoStore", "open_mongo"]
