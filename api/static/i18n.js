/** Every text of the page, in English and Korean. A key that is missing in one table fails the tests. */

const en = {
  'page.skip': 'Skip to the message box',
  'page.language': 'Language',
  'page.docs': 'API reference',
  'page.close': 'Close',
  'page.cancel': 'Cancel',
  'page.copy': 'Copy',
  'page.copied': 'Copied',

  'sessions.title': 'Conversations',
  'sessions.new': 'New chat',
  'sessions.more': 'Show more',
  'sessions.open': 'Open the list of conversations',
  'sessions.close': 'Close the list of conversations',
  'sessions.none': 'No conversation yet.',
  'sessions.untitled': 'New conversation',
  'sessions.live': 'Live: held in memory',
  'sessions.kept': 'Kept in history',
  'sessions.waiting': 'Waiting for your answer',
  'sessions.busy': 'Running',
  'sessions.turns': { one: '{n} turn', other: '{n} turns' },
  'sessions.delete': 'Delete “{title}”',
  'sessions.delete.title': 'Delete this conversation?',
  'sessions.delete.text': '“{title}” and all its checkpoints are removed for good.',
  'sessions.delete.yes': 'Delete',
  'sessions.failed': 'The list could not be loaded.',

  'chat.title': 'Conversation',
  'chat.message': 'Message',
  'chat.placeholder': 'Ask something…',
  'chat.send': 'Send',
  'chat.stop': 'Stop',
  'chat.stopping': 'Stopping…',
  'chat.hint': 'Enter sends, Shift+Enter starts a new line.',
  'chat.jump': 'Jump to the newest message',
  'chat.you': 'You',
  'chat.agent': 'Agent',
  'chat.answered': 'Answer: {text}',
  'chat.loading': 'Loading…',

  'empty.title': 'What would you like to know?',
  'empty.text': 'Every step of the agent shows up here as it happens, and each one can be stepped back to.',
  'prompt.1.title': 'Calculate',
  'prompt.1': 'What is (15+27)*3?',
  'prompt.2.title': 'Weather',
  'prompt.2': 'How is the weather in Seoul right now?',
  'prompt.3.title': 'Search',
  'prompt.3': 'Search for what a state machine is',
  'prompt.4.title': 'Get to know it',
  'prompt.4': 'What can you do?',

  'graph.title': 'Steps of the agent',
  'node.analyze_intent': 'Analyze intent',
  'node.execute_tools': 'Run tools',
  'node.respond': 'Respond',
  'state.waiting': 'waiting',
  'state.active': 'running',
  'state.done': 'done',
  'state.failed': 'failed',
  'state.stopped': 'stopped',
  'state.asking': 'asks you',
  'state.next': 'next',
  'graph.times': '×{n}',

  'doing.start': 'Starting…',
  'doing.analyze_intent': 'Reading your question…',
  'doing.execute_tools': 'Using tools…',
  'doing.respond': 'Writing…',
  'doing.other': 'Running {name}…',

  'intent.title': 'Intent',
  'intent.kind.tool': 'Needs tools',
  'intent.kind.chat': 'Conversation',
  'intent.kind.greeting': 'Greeting',
  'intent.kind.help': 'Asks for help',
  'intent.kind.unknown': 'Unclear',
  'intent.confidence': 'Confidence',
  'intent.confidence.value': '{n} % confident',
  'intent.language': 'Language',
  'intent.language.value': '{name}',

  'tool.calculator': 'Calculator',
  'tool.weather': 'Weather',
  'tool.search': 'Search',
  'tool.running': 'running',
  'tool.done': 'done',
  'tool.failed': 'failed',
  'tool.stopped': 'stopped',
  'tool.cached': 'cached',
  'tool.args': 'Arguments',
  'tool.result': 'Result',
  'tool.error': 'Error',
  'tool.details': 'Arguments and result',
  'tool.feels': 'feels like {t} °C',
  'tool.wind': 'wind {n} km/h',
  'tool.humidity': 'humidity {n} %',
  'tool.results': { one: '{n} result', other: '{n} results' },

  'turn.stopped': 'Stopped',
  'turn.recorded': 'Recording',
  'turn.waiting': 'Waiting for your answer',
  'turn.tokens': { one: '{n} token', other: '{n} tokens' },
  'turn.checkpoint': 'Step back through this turn',
  'turn.retry': 'Retry',
  'turn.silent': 'The run ended without an answer.',

  'interrupt.title': 'The agent asks',
  'interrupt.answer': 'Your answer',
  'interrupt.hint': 'Plain text, or JSON for a structured answer.',
  'interrupt.send': 'Answer and go on',
  'interrupt.answered': 'You answered',

  'error.title': 'That did not work',
  'error.network': 'The service cannot be reached.',
  'error.reconnecting': 'The connection dropped. Reconnecting…',
  'error.lost': 'The connection was lost and could not be restored.',
  'error.invalid': 'The service did not understand the request.',
  'error.denied': 'The API key was not accepted.',
  'error.missing': 'This no longer exists, or it is not yours.',
  'error.conflict': 'This conversation is busy with something else right now.',
  'error.limited': 'Too many requests. Please wait a moment.',
  'error.unavailable': 'Something the service depends on is away.',
  'error.timeout': 'The run took too long and was ended.',
  'error.internal': 'Something went wrong inside the service.',
  'error.model_unreachable': 'The model server cannot be reached.',
  'error.model_overloaded': 'The model server is overloaded.',
  'error.model_timeout': 'The model took too long to answer.',
  'error.model_stream_broken': 'The model stopped in the middle of its answer.',
  'error.model_refused': 'The model server refused the request.',
  'error.model_invalid': 'The model server did not accept the request.',
  'error.context_overflow': 'The conversation has become too long for the model.',

  'key.title': 'API key',
  'key.text': 'This service asks for a key. It stays in this tab and is forgotten when the tab closes.',
  'key.wrong': 'That key was not accepted. Please try again.',
  'key.label': 'Key',
  'key.send': 'Continue',

  'checkpoints.title': 'Checkpoints',
  'checkpoints.close': 'Close the checkpoints',
  'checkpoints.none': 'No checkpoint yet. Send a message first.',
  'checkpoints.older': 'Older checkpoint (←)',
  'checkpoints.newer': 'Newer checkpoint (→)',
  'checkpoints.more': 'Show older',
  'checkpoints.step': 'Step {n}',
  'checkpoints.position': '{n} of {total}',
  'checkpoints.source': 'Source',
  'checkpoints.source.input': 'Input',
  'checkpoints.source.loop': 'Message received',
  'checkpoints.source.update': 'Edited state',
  'checkpoints.source.fork': 'Fork',
  'checkpoints.nodes': 'After',
  'checkpoints.next': 'Next',
  'checkpoints.next.none': 'End of the turn',
  'checkpoints.time': 'Saved',
  'checkpoints.input': 'Input',
  'checkpoints.messages': 'Messages at this point',
  'checkpoints.messages.none': 'No message yet.',
  'checkpoints.state': 'Whole state',
  'checkpoints.replay': 'Replay from here',
  'checkpoints.replay.all': 'Replay from the start',
  'checkpoints.replay.hint': 'Plays the recording. Nothing is called.',
  'checkpoints.rerun': 'Run again from here',
  'checkpoints.rerun.hint': 'Calls the model and the tools again.',
  'checkpoints.rerun.end': 'Nothing is left to run here: this is the end of a turn.',
  'checkpoints.calls': 'calls {name}',
  'checkpoints.keys': 'The ← and → keys step through.',

  'recording.note': 'This is a recording. No model and no tool is called.',
  'recording.leave': 'Back to the conversation',
  'recording.none': 'Nothing was recorded after this checkpoint.',

  'role.user': 'You',
  'role.assistant': 'Agent',
  'role.tool': 'Tool',
  'role.system': 'System',

  'json.items': { one: '{n} item', other: '{n} items' },
  'json.fields': { one: '{n} field', other: '{n} fields' },
  'json.more': 'Show {n} more',
};

/** @type {typeof en} */
const ko = {
  'page.skip': '메시지 입력란으로 건너뛰기',
  'page.language': '언어',
  'page.docs': 'API 문서',
  'page.close': '닫기',
  'page.cancel': '취소',
  'page.copy': '복사',
  'page.copied': '복사됨',

  'sessions.title': '대화 목록',
  'sessions.new': '새 대화',
  'sessions.more': '더 보기',
  'sessions.open': '대화 목록 열기',
  'sessions.close': '대화 목록 닫기',
  'sessions.none': '아직 대화가 없습니다.',
  'sessions.untitled': '새 대화',
  'sessions.live': '활성: 메모리에 있음',
  'sessions.kept': '기록에 보관됨',
  'sessions.waiting': '답변을 기다리는 중',
  'sessions.busy': '실행 중',
  'sessions.turns': { other: '{n}턴' },
  'sessions.delete': '“{title}” 삭제',
  'sessions.delete.title': '이 대화를 삭제할까요?',
  'sessions.delete.text': '“{title}” 대화와 모든 체크포인트가 영구히 삭제됩니다.',
  'sessions.delete.yes': '삭제',
  'sessions.failed': '목록을 불러오지 못했습니다.',

  'chat.title': '대화',
  'chat.message': '메시지',
  'chat.placeholder': '무엇이든 물어보세요…',
  'chat.send': '보내기',
  'chat.stop': '중지',
  'chat.stopping': '중지하는 중…',
  'chat.hint': 'Enter로 보내고, Shift+Enter로 줄을 바꿉니다.',
  'chat.jump': '최신 메시지로 이동',
  'chat.you': '나',
  'chat.agent': '에이전트',
  'chat.answered': '답변: {text}',
  'chat.loading': '불러오는 중…',

  'empty.title': '무엇이 궁금하세요?',
  'empty.text': '에이전트의 모든 단계가 실시간으로 표시되며, 언제든 각 단계로 되돌아가 볼 수 있습니다.',
  'prompt.1.title': '계산',
  'prompt.1': '(15+27)*3은 얼마야?',
  'prompt.2.title': '날씨',
  'prompt.2': '지금 서울 날씨 어때?',
  'prompt.3.title': '검색',
  'prompt.3': '상태 기계가 무엇인지 검색해 줘',
  'prompt.4.title': '알아보기',
  'prompt.4': '무엇을 할 수 있어?',

  'graph.title': '에이전트의 단계',
  'node.analyze_intent': '의도 분석',
  'node.execute_tools': '도구 실행',
  'node.respond': '응답',
  'state.waiting': '대기',
  'state.active': '실행 중',
  'state.done': '완료',
  'state.failed': '실패',
  'state.stopped': '중지됨',
  'state.asking': '질문 중',
  'state.next': '다음',
  'graph.times': '×{n}',

  'doing.start': '시작하는 중…',
  'doing.analyze_intent': '질문을 파악하는 중…',
  'doing.execute_tools': '도구를 사용하는 중…',
  'doing.respond': '작성하는 중…',
  'doing.other': '{name} 실행 중…',

  'intent.title': '의도',
  'intent.kind.tool': '도구 필요',
  'intent.kind.chat': '대화',
  'intent.kind.greeting': '인사',
  'intent.kind.help': '도움 요청',
  'intent.kind.unknown': '불분명',
  'intent.confidence': '확신도',
  'intent.confidence.value': '확신도 {n}%',
  'intent.language': '언어',
  'intent.language.value': '{name}',

  'tool.calculator': '계산기',
  'tool.weather': '날씨',
  'tool.search': '검색',
  'tool.running': '실행 중',
  'tool.done': '완료',
  'tool.failed': '실패',
  'tool.stopped': '중지됨',
  'tool.cached': '캐시',
  'tool.args': '인자',
  'tool.result': '결과',
  'tool.error': '오류',
  'tool.details': '인자와 결과',
  'tool.feels': '체감 {t} °C',
  'tool.wind': '바람 {n} km/h',
  'tool.humidity': '습도 {n}%',
  'tool.results': { other: '결과 {n}건' },

  'turn.stopped': '중지됨',
  'turn.recorded': '녹화',
  'turn.waiting': '답변을 기다리는 중',
  'turn.tokens': { other: '토큰 {n}개' },
  'turn.checkpoint': '이 턴의 단계 되짚어 보기',
  'turn.retry': '다시 시도',
  'turn.silent': '답변 없이 실행이 끝났습니다.',

  'interrupt.title': '에이전트가 묻습니다',
  'interrupt.answer': '내 답변',
  'interrupt.hint': '일반 텍스트 또는 구조화된 답변이면 JSON을 입력하세요.',
  'interrupt.send': '답하고 계속하기',
  'interrupt.answered': '내가 한 답변',

  'error.title': '문제가 생겼습니다',
  'error.network': '서비스에 연결할 수 없습니다.',
  'error.reconnecting': '연결이 끊겼습니다. 다시 연결하는 중…',
  'error.lost': '연결이 끊겨 복구하지 못했습니다.',
  'error.invalid': '서비스가 요청을 이해하지 못했습니다.',
  'error.denied': 'API 키가 거부되었습니다.',
  'error.missing': '더 이상 없거나 접근할 수 없는 항목입니다.',
  'error.conflict': '이 대화는 지금 다른 작업을 처리하고 있습니다.',
  'error.limited': '요청이 너무 많습니다. 잠시 후 다시 시도하세요.',
  'error.unavailable': '서비스가 사용하는 구성 요소에 연결할 수 없습니다.',
  'error.timeout': '실행이 너무 오래 걸려 종료되었습니다.',
  'error.internal': '서비스 내부에서 문제가 발생했습니다.',
  'error.model_unreachable': '모델 서버에 연결할 수 없습니다.',
  'error.model_overloaded': '모델 서버가 과부하 상태입니다.',
  'error.model_timeout': '모델의 응답이 너무 오래 걸렸습니다.',
  'error.model_stream_broken': '모델이 답변 도중에 멈췄습니다.',
  'error.model_refused': '모델 서버가 요청을 거절했습니다.',
  'error.model_invalid': '모델 서버가 요청을 받아들이지 않았습니다.',
  'error.context_overflow': '대화가 모델이 처리하기에 너무 길어졌습니다.',

  'key.title': 'API 키',
  'key.text': '이 서비스에는 키가 필요합니다. 키는 이 탭에만 보관되며 탭을 닫으면 지워집니다.',
  'key.wrong': '키가 거부되었습니다. 다시 입력하세요.',
  'key.label': '키',
  'key.send': '계속',

  'checkpoints.title': '체크포인트',
  'checkpoints.close': '체크포인트 닫기',
  'checkpoints.none': '아직 체크포인트가 없습니다. 먼저 메시지를 보내세요.',
  'checkpoints.older': '이전 체크포인트 (←)',
  'checkpoints.newer': '다음 체크포인트 (→)',
  'checkpoints.more': '이전 항목 더 보기',
  'checkpoints.step': '{n}단계',
  'checkpoints.position': '{total}개 중 {n}',
  'checkpoints.source': '출처',
  'checkpoints.source.input': '입력',
  'checkpoints.source.loop': '메시지 수신',
  'checkpoints.source.update': '수정된 상태',
  'checkpoints.source.fork': '분기',
  'checkpoints.nodes': '실행됨',
  'checkpoints.next': '다음',
  'checkpoints.next.none': '턴의 끝',
  'checkpoints.time': '저장 시각',
  'checkpoints.input': '입력',
  'checkpoints.messages': '이 시점의 메시지',
  'checkpoints.messages.none': '아직 메시지가 없습니다.',
  'checkpoints.state': '전체 상태',
  'checkpoints.replay': '여기서부터 재생',
  'checkpoints.replay.all': '처음부터 재생',
  'checkpoints.replay.hint': '녹화를 재생합니다. 아무것도 호출하지 않습니다.',
  'checkpoints.rerun': '여기서 다시 실행',
  'checkpoints.rerun.hint': '모델과 도구를 다시 호출합니다.',
  'checkpoints.rerun.end': '턴의 끝이라 더 실행할 단계가 없습니다.',
  'checkpoints.calls': '{name} 호출',
  'checkpoints.keys': '← → 키로 이동합니다.',

  'recording.note': '녹화된 내용입니다. 모델과 도구를 호출하지 않습니다.',
  'recording.leave': '대화로 돌아가기',
  'recording.none': '이 체크포인트 이후의 기록이 없습니다.',

  'role.user': '나',
  'role.assistant': '에이전트',
  'role.tool': '도구',
  'role.system': '시스템',

  'json.items': { other: '{n}개 항목' },
  'json.fields': { other: '{n}개 필드' },
  'json.more': '{n}개 더 보기',
};

export const tables = { en, ko };

const KEPT = 'threadline.language';

/** @returns {'en'|'ko'} */
function preferred() {
  const kept = localStorage.getItem(KEPT);
  if (kept === 'en' || kept === 'ko') return kept;
  return navigator.language.toLowerCase().startsWith('ko') ? 'ko' : 'en';
}

let language = preferred();

export const currentLanguage = () => language;

/** Use a language from now on, in this browser. @param {'en'|'ko'} chosen */
export function chooseLanguage(chosen) {
  language = chosen;
  localStorage.setItem(KEPT, chosen);
}

/** @param {string} key */
export const has = (key) => Object.hasOwn(tables[language], key);

/**
 * The text of a key in the chosen language; `{name}` is filled from `params`, and `n` picks the plural form.
 * @param {string} key
 * @param {Record<string, string|number|(() => string)>} [params] a function is asked each time the text is shown
 */
export function t(key, params = {}) {
  const entry = has(key) ? tables[language][key] : key;
  const form = typeof entry === 'string' ? entry : plural(entry, Number(params.n));
  return form.replace(/\{(\w+)\}/g, (hole, name) => {
    const given = params[name];
    const value = typeof given === 'function' ? given() : given;
    if (value === undefined) return hole;
    return typeof value === 'number' ? number(value) : value;
  });
}

function plural(forms, n) {
  return forms[new Intl.PluralRules(language).select(n)] ?? forms.other;
}

/** @param {number} value */
export const number = (value) => new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(value);

/** Milliseconds as a reader likes them: `38 ms`, `1.2 s`. @param {number} ms */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${number(Math.round(ms / 100) / 10)} s`;
}

/** A moment relative to now, such as "5 minutes ago". @param {string} iso */
export function ago(iso) {
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  if (Number.isNaN(seconds)) return '';
  const steps = [['year', 31536000], ['month', 2592000], ['day', 86400], ['hour', 3600], ['minute', 60]];
  const [unit, size] = steps.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  const amount = unit === 'second' ? 0 : Math.trunc(seconds / size);
  return new Intl.RelativeTimeFormat(language, { numeric: 'auto' }).format(amount, unit);
}

/** A moment to the second. @param {string} iso */
export function moment(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return '';
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' }).format(date);
}

/** The name of a language, such as "Korean" for `ko`. @param {string} code */
export function languageName(code) {
  try {
    return new Intl.DisplayNames([language], { type: 'language' }).of(code) ?? code;
  } catch {
    return code;
  }
}
