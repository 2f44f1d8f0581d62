"""Small talk and the memory of this conversation: greetings, help, "my name is …", "what did I ask before?"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from threadline.services.models.offline_conversation import LONGEST, Conversation, Plan


class ChatRule(NamedTuple):
    pattern: re.Pattern[str]
    handle: Callable[[re.Match[str], Conversation], Plan | None]


def _says(topic: str, kind: str = "chat") -> Callable[[re.Match[str], Conversation], Plan]:
    plan = {
        "greeting": Plan("greeting", topic, confidence=0.99),
        "help": Plan("help", topic, confidence=0.95),
        "chat": Plan("chat", topic, confidence=0.9),
    }[kind]
    return lambda match, conversation: plan


# --- Facts --------------------------------------------------------------------------------------------------------

_TOLD = (
    re.compile(
        r"\bmy (?P<what>[a-z][a-z' -]{1,30}?) (?:is|are) (?P<value>(?!not\b|what\b"
        r"|it\b)[^.?!,;\n]{1,60}?)(?=[.!,;\n]|\s+(?:and|but|so) |\s*$)",
        re.I,
    ),
    re.compile(
        r"\b(?:call me|I am called) (?!at|on|when|if|in|a|an|the|back|later|by"
        r"|maybe)(?P<name>[^\W\d_][\w'-]*(?: [A-Z][\w'-]*)?)",
        re.I,
    ),
    re.compile(r"\b(?:I'm|I am) (?P<name>(?-i:[A-Z])[\w'-]*(?: (?-i:[A-Z])[\w'-]*)?)[\s.!]*(?:$|\n|[,.!] )", re.I),
    re.compile(
        r"(?:내|제|나의|저의) (?P<what>[가-힣]{1,10}?(?: [가-힣]{1,10}?)?)(?:은|는|이|가) "
        r"(?P<value>(?!뭐|무엇|뭔|누구|어디|몇|언제|기억|알)[^.?!,;\n]{1,40}?)(?:라고 (?:해요?|합니다)"
        r"|이라고 (?:해요?|합니다)|이야|이에요|예요|에요|입니다|이다|야)?(?=[.!~,;\n]|$)"
    ),
    re.compile(r"(?P<name>[가-힣A-Za-z]{1,20}?)(?:이라고|라고) (?:해요|합니다|불러|부르)"),
)
_HOME = re.compile(
    r"\bI (?:live|am|'m) (?:in|from) (?P<en>[^\W\d_][\w' -]{1,40}?)(?=[.,!;\n]| and |$)"
    r"|(?P<ko>[가-힣]{2,10})에 ?(?:살아|살고|삽니다|사는|산다)",
    re.I,
)
_SAME = {"이름": "name", "성함": "name", "favourite": "favorite"}


def _fact(match: re.Match[str]) -> tuple[str, str]:
    groups = match.groupdict()
    if "name" in groups:
        return "name", groups["name"].strip()
    return _topic_of(groups["what"]), groups["value"].strip()


def _topic_of(words: str) -> str:
    words = " ".join(words.lower().split()).replace("favourite", "favorite")
    return _SAME.get(words, words)


def _facts(text: str) -> list[tuple[str, str]]:
    return [_fact(match) for pattern in _TOLD for match in pattern.finditer(text[:LONGEST])]


def recalled(what: str, asked: Sequence[str]) -> str | None:
    """The latest value of "my … is …" in what was said before."""
    told = (value for text in reversed(asked) for topic, value in reversed(_facts(text)) if topic == what)
    return next(told, None)


def home(asked: Sequence[str]) -> str | None:
    """Where the asker said to live."""
    found = (match for text in reversed(asked) for match in _HOME.finditer(text[:LONGEST]))
    return next((match["en"] or match["ko"] for match in found), None)


def _recall(match: re.Match[str], conversation: Conversation) -> Plan:
    what = _topic_of(match["what"]) if "what" in match.re.groupindex else "name"
    value = recalled(what, (*conversation.asked, conversation.question))
    spoken = "name" if what == "name" else match["what"]
    return Plan("chat", "fact_known" if value else "fact_unknown", (spoken, value or ""), confidence=0.9)


def _tell(match: re.Match[str], conversation: Conversation) -> Plan | None:
    what, value = _fact(match)
    return Plan("chat", "fact_told", (what, value), confidence=0.85)


def _live(match: re.Match[str], conversation: Conversation) -> Plan:
    return Plan("chat", "home_told", (match["en"] or match["ko"],), confidence=0.85)


# --- What was asked -----------------------------------------------------------------------------------------------


def _asked(which: str) -> Callable[[re.Match[str], Conversation], Plan]:
    def answer(match: re.Match[str], conversation: Conversation) -> Plan:
        asked = conversation.asked
        chosen = {"first": asked[:1], "last": asked[-1:], "all": asked[-10:]}[which]
        return Plan("chat", f"asked_{which}" if chosen else "asked_nothing", tuple(_shortened(text) for text in chosen))

    return answer


def _shortened(text: str) -> str:
    line = " ".join(text[:400].split())
    return line if len(line) <= 200 else f"{line[:199].rstrip()}…"


# --- The table ----------------------------------------------------------------------------------------------------

_END = r"[\s!.?~,^ㅎㅋ:)]*"
_NAME = r"(?: (?:there|again|threadline|everyone|all|friend|bot|assistant))?"
_HI = rf"(?:hi+|hello+|hey+|howdy|hiya|yo|greetings|good (?:morning|afternoon|evening|day)){_NAME}"
_HOW = r"(?:how (?:are|r) you(?: doing)?(?: today)?|how's it going|how do you do|what'?s up|nice to meet you)"
_ANNYEONG = (
    r"(?:안녕(?:하세요|하십니까|하신가요)?|하이|헬로우?|반가워요?|반갑습니다|좋은 ?아침(?:이에요|입니다)?"
    r"|여보세요|ㅎㅇ)"
)
_ASK = r"(?:ask(?:ed)?|sa(?:y|id)|tell|told|want(?:ed)?|request(?:ed)?)"
_KOREAN_ASKED = r"(?:물어|물었|질문|말|얘기|이야기|여쭤|했)\S*"

CHAT_RULES = tuple(
    ChatRule(re.compile(pattern, re.IGNORECASE), handle)
    for pattern, handle in (
        (rf"{_HI}(?:[,!. ]+{_HI})?(?:[,!. ]+{_HOW})?{_END}", _says("greeting", "greeting")),
        (rf"{_HOW}{_END}", _says("well", "greeting")),
        (rf"{_ANNYEONG}(?:[,!. ]*{_ANNYEONG})?(?:[,!. ]*(?:잘 ?지내\S*))?{_END}", _says("greeting", "greeting")),
        (rf"(?:잘 ?지내|어떻게 ?지내|기분 ?어때)\S*{_END}", _says("well", "greeting")),
        (
            r"(?:so |ok |hey |hi |hello |please )*(?:,? ?)(?:what (?:all )?(?:can|could|do) you (?:do"
            r"|help|offer|know how)|how (?:can|do) you help|how do (?:i|you) (?:use|work)\b|"
            r"what are (?:you able|your (?:features|capabilities|tools|skills|functions))"
            r"|what (?:tools|features|functions|commands) )[^\n]{0,60}",
            _says("help", "help"),
        ),
        (
            rf"(?:(?:please|hi|hello|hey)[,! ]+)*+(?:help(?: me)?|show help|/help|usage|commands"
            rf"|(?:can|could) you (?:please )?help(?: me)?(?: with (?:something|this|that|it))?){_END}",
            _says("help", "help"),
        ),
        (
            r"(?:who|what) (?:are|r) (?:you|u)\b[^\n]{0,30}|are you (?:an? )?(?:ai|bot|robot|human"
            r"|real|chatgpt|gpt|claude|llm|model|offline)\b[^\n]{0,30}"
            r"|(?:what is|what's) your name[^\n]{0,10}|(?:what|which) (?:language )?model (?:are|is"
            r"|do) [^\n]{0,30}|(?:introduce|tell me about) yourself[^\n]{0,10}",
            _says("identity", "help"),
        ),
        (
            r"(?:넌|너는|너|네가|니가|당신은|당신이)? ?(?:뭘|뭐를|무엇을|뭐|무얼|어떤 (?:걸|것을|일을)"
            r"|할 수 있는 ?(?:게|것이|건|거)) ?(?:뭐|무엇|할 ?수|해 ?줄 ?수|도와 ?줄"
            r"|할 ?줄)[^\n]{0,20}"
            r"|(?:도와 ?줘요?|도와 ?주세요|도움말|도움|사용법|기능|사용 ?방법)(?:을|이"
            rf"|은)?(?: ?(?:알려 ?줘|알려 ?주세요|뭐야|좀|보여 ?줘|필요해)\S*)?{_END}|어떻게 (?:사용"
            rf"|쓰)\S*{_END}",
            _says("help", "help"),
        ),
        (
            r"(?:넌|너는|너|네가|니가|당신은|당신이|당신) ?(?:누구|뭐|무엇|뭐하는|이름|사람|로봇|ai"
            r"|인공지능)[^\n]{0,20}|(?:(?:너의?|네|니|당신의?) )?이름이? ?(?:뭐|무엇|뭔)[^\n]{0,15}"
            r"|자기 ?소개[^\n]{0,10}",
            _says("identity", "help"),
        ),
        (
            r"(?:ok(?:ay)?[, ]+|great[, ]+|oh[, ]+|wow[, ]+)?(?:thanks?(?: you)?|thank u|thx|ty|cheers"
            rf"|much appreciated)(?: (?:so|very) much| a lot| for (?:your|the) [\w ]{{1,20}}"
            rf"| again)?{_NAME}{_END}",
            _says("thanks"),
        ),
        (
            r"(?:아|네|오)?[, ]*(?:정말 |너무 |대단히 |무척 )?(?:고마워요?|고맙습니다|감사(?:합니다|해요"
            rf"|드립니다|해)?|땡큐|ㄳ|ㄱㅅ){_END}",
            _says("thanks"),
        ),
        (
            r"(?:ok(?:ay)?|yes|yeah|yep|no|nope|sure|fine|great|cool|nice|good|got it|i see|all right|alright|wow|hmm+"
            rf"|네|예|응|아니요?|아니오|그래요?|알겠어요?|알겠습니다|좋아요?|오케이|그렇구나|ㅇㅋ|ㅇㅇ){_END}",
            _says("ack"),
        ),
        (
            r"(?:ok(?:ay)?[, ]+)?(?:good ?bye|bye(?:[ -]?bye)?|see (?:you|ya)(?: later| soon| tomorrow)?"
            rf"|good ?night|cya|farewell|talk to you later){_NAME}{_END}",
            _says("bye"),
        ),
        (
            r"(?:그럼 |이만 )?(?:안녕히 ?(?:계세요|가세요|계십시오)|잘 ?(?:가|있어|자)요?|바이(?:바이)?"
            rf"|다음에 (?:봐|또)\S*|또 ?(?:봐|만나)\S*|수고(?:하세요|해|했어)\S*){_END}",
            _says("bye"),
        ),
        (
            rf"what(?: was| were|'s| is) (?:my|the) (?:very )?first (?:question|message|thing)[^\n]{{0,30}}"
            rf"|what did i (?:first )?{_ASK}[^\n]{{0,20}} first{_END}|what did i first {_ASK}[^\n]{{0,20}}",
            _asked("first"),
        ),
        (
            rf"(?:what|which questions?) (?:have|did) i {_ASK}[^\n]{{0,20}}(?:so far|until now|today"
            rf"|in total|altogether){_END}|(?:list|show)(?: me)? (?:all )?my (?:questions"
            rf"|messages)[^\n]{{0,20}}",
            _asked("all"),
        ),
        (
            r"(?:(?:can|could) you (?:tell me|remember) |do you remember |tell me "
            r"|remind me )?what (?:did|have|was it)(?: that)? i (?:just |previously "
            rf"|even )?{_ASK}[^\n]{{0,30}}"
            r"|(?:what|which)(?: was|'s| is) (?:my|the) (?:last|previous|earlier|prior) (?:question"
            rf"|message)[^\n]{{0,20}}",
            _asked("last"),
        ),
        (
            r"(?:내가|제가|나)? ?(?:가장 |맨 |제일 )?처음(?:에|으로)? ?(?:뭐|뭘|무엇"
            rf"|무슨)\S* ?(?:\S+ )?{_KOREAN_ASKED}(?: \S+)?|(?:내|제) 첫 ?(?:번째 )?질문[^\n]{{0,20}}",
            _asked("first"),
        ),
        (
            r"(?:내가|제가)? ?지금까지 ?(?:내가 |제가 )?(?:뭐|뭘|무엇|무슨"
            rf"|어떤)\S* ?(?:\S+ )?{_KOREAN_ASKED}(?: \S+)?",
            _asked("all"),
        ),
        (
            r"(?=.*(?:내가|제가|방금|아까|전에|물어|물었|질문))"
            r"(?:내가|제가|나)? ?(?:방금|아까|전에|이전에|조금 ?전에|앞에서|바로 전에)?(?: ?(?:내가"
            rf"|제가))? ?(?:뭐|뭘|무엇|무슨|뭐라고|어떤)\S* ?(?:\S+ )?{_KOREAN_ASKED}(?: \S+)?"
            r"|(?:내|제)?(?:가 한)? ?(?:마지막|이전|지난|방금) 질문[^\n]{0,20}",
            _asked("last"),
        ),
        (
            r"(?:(?:do you (?:know|remember)|what (?:is|was)|what's|tell me|remind me(?: of)?"
            r"|can you tell me)(?: what| who)? )?my (?P<what>(?:(?! (?:is|are"
            rf"|was)\b)[a-z' -]){{2,30}}?)(?: is| was| again)*{_END}",
            _recall,
        ),
        (
            r"(?:what|who|where|when)(?: is|'s| are"
            rf"| was) my (?P<what>[a-z][a-z' -]{{1,30}}?)(?: again)?{_END}",
            _recall,
        ),
        (
            rf"who am i{_END}|(?:do you (?:know|remember) )who i am{_END}|(?:내가|제가|나는|난"
            rf"|저는) ?누구\S*{_END}",
            _recall,
        ),
        (
            r"(?:혹시 |그럼 |그러면 )?(?:내|제|나의"
            r"|저의) (?P<what>[가-힣]{1,10}?(?: [가-힣]{1,10}?)??)(?:은|는|이|가|을|를)? ?(?:뭐"
            r"|무엇|뭔지|누구|어디|몇|언제|기억|알아|알려|말해|알고)[^\n]{0,20}",
            _recall,
        ),
        (
            r"what (?:time|day|date|year|month) is (?:it|today)\b[^\n]{0,20}|(?:what is"
            r"|what's) (?:the (?:current )?(?:time|date)|today's date|the day today)[^\n]{0,20}",
            _says("clock"),
        ),
        (
            r"(?:지금 |오늘 |현재 )?(?:몇 ?시|몇 ?월 ?며칠|며칠|무슨 ?요일|날짜|시간|시각)(?:이|은"
            r"|가)?(?:야|예요|에요|이에요|인가요|인지|지|이야|입니까| ?뭐야| ?알려 ?줘\S*"
            rf"| ?몇 ?시\S*)?{_END}",
            _says("clock"),
        ),
    )
)

TOLD_RULES = (*(ChatRule(pattern, _tell) for pattern in _TOLD), ChatRule(_HOME, _live))


def small_talk(text: str, conversation: Conversation) -> Plan | None:
    """The plan of a text that is small talk or a question about this conversation from end to end."""
    for rule in CHAT_RULES:
        if match := rule.pattern.fullmatch(text):
            return rule.handle(match, conversation)
    return None


def told(text: str, conversation: Conversation) -> Plan | None:
    """The plan of a text that tells us something about the asker."""
    for rule in TOLD_RULES:
        if match := rule.pattern.search(text):
            return rule.handle(match, conversation)
    return None
