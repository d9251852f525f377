"""The knowledge service, declared."""

from rapport.common.events.topics import CASES, FEEDBACK, KNOWLEDGE
from rapport.common.runtime import Service
from rapport.knowledge.api import router
from rapport.knowledge.domain.articles import Article
from rapport.knowledge.domain.case_texts import CaseText
from rapport.knowledge.domain.in_force import InForce
from rapport.knowledge.domain.key_messages import KeyMessage
from rapport.knowledge.domain.statements import Statement
from rapport.knowledge.handlers import DECLARED
from rapport.knowledge.resources import begin, end, resources

SERVICE = Service(
    name="knowledge",
    title="Rapport knowledge: what may be said, with whose approval",
    consumes=(FEEDBACK, CASES, KNOWLEDGE),
    kinds=(Article, KeyMessage, Statement, InForce, CaseText),
    declared=DECLARED,
    router=router,
    resources=resources,
    begin=begin,
    end=end,
)
