/** The graph as the server tells it: what runs is lit, what ran is counted, and a node can be opened or stopped at. */
import '@xyflow/react/dist/base.css';
import { layout as dagreLayout, Graph as DagreGraph } from '@dagrejs/dagre';
import { Background, BaseEdge, Handle, MarkerType, Position, ReactFlow, ReactFlowProvider, useReactFlow, type Edge, type EdgeProps, type Node, type NodeProps } from '@xyflow/react';
import { useEffect, useMemo, useState, type ReactElement } from 'react';
import * as lg from '../api/langgraph';
import type { Graph as GraphShape, GraphNode } from '../api/types';
import { app, openPanel, words } from '../app';
import { duration, moment, nodeName, number, t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import type { NodeRun } from '../model/run';
import { shownTurns } from '../model/turns';
import { pathTo } from '../model/tree';
import { server } from '../server';
import * as session from '../session';
import type { Chip } from '../ui/Cards';
import { Icon, IconButton } from '../ui/Icon';

type State = NodeRun['state'] | 'waiting' | 'next';
interface Facts { state: State; runs: number; ms: number }
interface Card extends Record<string, unknown> { name: string; facts: Facts; chosen: boolean; before: boolean; after: boolean; end: boolean }
interface Line extends Record<string, unknown> { points: { x: number; y: number }[] }

const WIDTH = 176;
const HEIGHT = 54;
const END = 34;

export default function Graph(): ReactElement {
  useLanguage();
  const { assistantId, status } = useExternal(server);
  const s = useExternal(session.session);
  const { node: chosen } = useExternal(app);
  const [xray, setXray] = useState(true);
  const [ran, setRan] = useState(false);
  const [listed, setListed] = useState(false);
  const [graph, setGraph] = useState<GraphShape | null>(null);
  const [problem, setProblem] = useState<unknown>(null);
  useEffect(() => {
    if (status !== 'ready') return undefined;
    let gone = false;
    setProblem(null);
    lg.graph(assistantId, xray).catch(() => lg.graph(assistantId, false)).then((drawn) => { if (!gone) setGraph(drawn); }, (error: unknown) => { if (!gone) setProblem(error); });
    return () => { gone = true; };
  }, [assistantId, xray, status]);

  const run = s.recording ? s.recording.run ?? s.recording.runs.at(-1) ?? null : s.past ? null : s.run;
  const chips = useMemo(() => {
    const turns = shownTurns({ messages: session.shownMessages(s), segments: s.recording ? [] : session.segments(s), documented: new Map(), runs: s.past ? new Map() : s.runs, run, intent: null });
    return turns.at(-1)?.chips ?? (run?.nodes ?? []).map((node): Chip => ({ ...node, ms: node.to === null ? null : node.to - node.from }));
  }, [s, run]);
  const facts = useMemo(() => factsOf(chips, s.past ? s.past.checkpoint.next : run?.status === 'running' || s.recording ? [] : s.next), [chips, s.past, s.next, run]);
  if (problem) return <p className="padded wrong" role="alert">{words(problem)}</p>;
  if (!graph) return <p className="muted padded">{t('chat.loading')}</p>;
  const shown = ran ? asItRan(chips) : graph;
  return (
    <div className="graph-panel">
      <div className="toolbar">
        <div className="switch" role="group" aria-label={t('graph.view')}>
          <button type="button" aria-pressed={!ran} onClick={() => setRan(false)}>{t('graph.aggregated')}</button>
          <button type="button" aria-pressed={ran} onClick={() => setRan(true)}>{t('graph.ran')}</button>
        </div>
        <label className="check"><input type="checkbox" checked={xray} onChange={(event) => setXray(event.target.checked)} />{t('graph.xray')}</label>
        <IconButton icon="list" className="graph-list-toggle" label={t('graph.list')} pressed={listed} onClick={() => setListed(!listed)} />
      </div>
      {ran && chips.length === 0 ? <p className="muted padded">{t('graph.notrun')}</p> : listed
        ? <NodeList graph={shown} facts={facts} chosen={chosen} />
        : <ReactFlowProvider key={ran ? `ran-${chips.length}` : `graph-${assistantId}-${xray}`}><Picture graph={shown} facts={ran ? null : facts} chips={chips} chosen={chosen} breakpoints={s.breakpoints} /></ReactFlowProvider>}
      {chosen && <NodeDetail node={chosen} facts={facts.get(chosen)} />}
    </div>
  );
}

function factsOf(chips: Chip[], next: string[]): Map<string, Facts> {
  const facts = new Map<string, Facts>();
  for (const { path, state, ms } of chips) {
    const known = facts.get(path);
    facts.set(path, { state, runs: (known?.runs ?? 0) + 1, ms: (known?.ms ?? 0) + (ms ?? 0) });
  }
  for (const name of next) {
    const known = facts.get(name);
    if (!known || known.state === 'done') facts.set(name, { runs: 0, ms: 0, ...known, state: 'next' });
  }
  return facts;
}

/** Every execution as a node of its own, one after the other. */
function asItRan(chips: Chip[]): GraphShape {
  const nodes = chips.map((chip, n) => ({ id: `${n}|${chip.path}`, data: { name: chip.path } }));
  return { nodes, edges: nodes.slice(1).map((node, n) => ({ source: nodes[n]?.id ?? '', target: node.id })) };
}

const isEnd = (id: string): boolean => /(^|:)__(start|end)__$/.test(id);
const labelOf = ({ id, data }: GraphNode): string => {
  const given = typeof data === 'string' ? data : (data as { name?: unknown } | null)?.name;
  const name = typeof given === 'string' && !id.includes('|') ? id.split(':').at(-1) ?? given : id.split('|').at(-1)?.split(':').at(-1) ?? id;
  return isEnd(id) ? t(id.endsWith('__start__') ? 'graph.start' : 'graph.end') : nodeName(name);
};
const WAITING: Facts = { state: 'waiting', runs: 0, ms: 0 };

interface PictureProps { graph: GraphShape; facts: Map<string, Facts> | null; chips: Chip[]; chosen: string | null; breakpoints: session.Session['breakpoints'] }

function Picture({ graph, facts, chips, chosen, breakpoints }: PictureProps): ReactElement {
  const flow = useReactFlow();
  const placed = useMemo(() => placeNodes(graph), [graph]);
  const nodes = useMemo(() => placed.nodes.map((node): Node => {
    if (node.type === 'group-box') return node;
    const path = node.id.includes('|') ? node.id.slice(node.id.indexOf('|') + 1) : node.id;
    const chip = chips[Number(node.id.split('|')[0])];
    const own = facts ? facts.get(path) ?? WAITING : chip ? { state: chip.state, runs: 1, ms: chip.ms ?? 0 } : WAITING;
    const top = path.split(':')[0] ?? path;
    const data: Card = { ...(node.data as Card), facts: own, chosen: path === chosen, before: breakpoints.before.includes(top) && top === path, after: breakpoints.after.includes(top) && top === path };
    return { ...node, data };
  }), [placed, facts, chips, chosen, breakpoints]);
  return (
    <div className="flow" role="group" aria-label={t('graph.title')}>
      <ReactFlow nodes={nodes} edges={placed.edges} nodeTypes={NODES} edgeTypes={EDGES} fitView fitViewOptions={{ padding: 0.12, maxZoom: 1.1 }} minZoom={0.1} maxZoom={2} nodesDraggable={false} nodesConnectable={false}
        nodesFocusable={false} edgesFocusable={false} elementsSelectable={false} zoomOnScroll={false} panOnScroll preventScrolling={false}
        onNodeClick={(_, node) => { if (node.type === 'card' && !isEnd(node.id)) app.change({ node: node.id.includes('|') ? node.id.slice(node.id.indexOf('|') + 1) : node.id }); }}>
        <Background gap={18} size={1} />
      </ReactFlow>
      <div className="flow-tools">
        <IconButton icon="plus" label={t('graph.in')} onClick={() => void flow.zoomIn()} />
        <IconButton icon="fit" label={t('graph.fit')} onClick={() => void flow.fitView({ padding: 0.12 })} />
      </div>
    </div>
  );
}

function placeNodes({ nodes, edges }: GraphShape): { nodes: Node[]; edges: Edge[] } {
  const plan = new DagreGraph({ multigraph: true });
  plan.setGraph({ rankdir: 'TB', nodesep: 36, ranksep: 44, edgesep: 18 });
  plan.setDefaultEdgeLabel(() => ({}));
  for (const { id } of nodes) plan.setNode(id, { width: isEnd(id) ? 84 : WIDTH, height: isEnd(id) ? END : HEIGHT });
  edges.forEach((edge, n) => plan.setEdge(edge.source, edge.target, {}, String(n)));
  dagreLayout(plan);
  const cards = nodes.map((node): Node => {
    const { x, y, width, height } = plan.node(node.id) as { x: number; y: number; width: number; height: number };
    return { id: node.id, type: 'card', position: { x: x - width / 2, y: y - height / 2 }, width, height, data: { name: labelOf(node), end: isEnd(node.id), facts: WAITING, chosen: false, before: false, after: false } satisfies Card };
  });
  const lines = edges.map((edge, n): Edge => {
    const { points } = plan.edge({ v: edge.source, w: edge.target, name: String(n) }) as { points: Line['points'] };
    return { id: `${n}`, source: edge.source, target: edge.target, type: 'line', data: { points }, label: edge.data ?? undefined, markerEnd: { type: MarkerType.ArrowClosed, width: 16, height: 16, color: 'var(--line-strong)' }, className: edge.conditional ? 'conditional' : '' } as Edge;
  });
  return { nodes: [...boxes(cards), ...cards], edges: lines };
}

/** A box around the nodes of each subgraph. */
function boxes(cards: Node[]): Node[] {
  const groups = new Map<string, Node[]>();
  for (const card of cards) {
    const parts = card.id.split('|').at(-1)?.split(':') ?? [];
    for (let n = 1; n < parts.length; n += 1) {
      const name = parts.slice(0, n).join(':');
      groups.set(name, [...(groups.get(name) ?? []), card]);
    }
  }
  return [...groups].filter(([, inside]) => inside.length > 1).map(([name, inside]) => {
    const x = Math.min(...inside.map((one) => one.position.x)) - 14;
    const y = Math.min(...inside.map((one) => one.position.y)) - 28;
    const width = Math.max(...inside.map((one) => one.position.x + (one.width ?? 0))) + 14 - x;
    const height = Math.max(...inside.map((one) => one.position.y + (one.height ?? 0))) + 14 - y;
    return { id: `box ${name}`, type: 'group-box', position: { x, y }, width, height, zIndex: -1, data: { name: nodeName(name.split(':').at(-1) ?? name) } };
  });
}

function CardView({ data }: NodeProps): ReactElement {
  const { name, facts, chosen, before, after, end } = data as Card;
  return (
    <div className={`node${end ? ' end' : ''}${chosen ? ' chosen' : ''}`} data-graph-node={name} data-state={end ? undefined : facts.state}>
      <Handle type="target" position={Position.Top} isConnectable={false} />
      {before && <span className="brake before" title={t('graph.before')} />}
      <span className="node-name">{!end && <span className="dot" />}{name}</span>
      {!end && <span className="node-facts">{facts.runs > 0 ? `${t(`state.${facts.state}`)}${facts.runs > 1 ? ` · ${t('graph.times', { n: facts.runs })}` : ''} · ${duration(facts.ms)}` : t(`state.${facts.state}`)}</span>}
      {after && <span className="brake after" title={t('graph.after')} />}
      <Handle type="source" position={Position.Bottom} isConnectable={false} />
    </div>
  );
}

const BoxView = ({ data }: NodeProps): ReactElement => <div className="group-box"><span>{String(data.name)}</span></div>;

function LineView({ data, markerEnd, label, labelX, labelY }: EdgeProps & { labelX?: number; labelY?: number }): ReactElement {
  const { points } = data as Line;
  const [first, ...rest] = points;
  const middle = points[Math.floor(points.length / 2)];
  let path = first ? `M${first.x},${first.y}` : '';
  rest.forEach((point, n) => {
    const next = rest[n + 1];
    // Round the corners that the layout leaves.
    path += next ? ` Q${point.x},${point.y} ${(point.x + next.x) / 2},${(point.y + next.y) / 2}` : ` L${point.x},${point.y}`;
  });
  return <BaseEdge path={path} label={label} labelX={labelX ?? middle?.x} labelY={labelY ?? middle?.y} {...(markerEnd ? { markerEnd } : {})} />;
}

const NODES = { card: CardView, 'group-box': BoxView };
const EDGES = { line: LineView };

/** The same without a picture, for the keyboard and for readers who do not see it. */
function NodeList({ graph, facts, chosen }: { graph: GraphShape; facts: Map<string, Facts>; chosen: string | null }): ReactElement {
  const to = (id: string): string => graph.edges.filter(({ source }) => source === id).map(({ target }) => labelOf(graph.nodes.find((node) => node.id === target) ?? { id: target })).join(', ');
  return (
    <ul className="node-list">
      {graph.nodes.filter(({ id }) => !isEnd(id)).map((node) => {
        const path = node.id.includes('|') ? node.id.slice(node.id.indexOf('|') + 1) : node.id;
        const own = facts.get(path) ?? WAITING;
        return (
          <li key={node.id}>
            <button type="button" aria-pressed={chosen === path} data-state={own.state} onClick={() => app.change({ node: chosen === path ? null : path })}>
              <span className="dot" aria-hidden="true" /><strong>{path.split(':').map(nodeName).join(' › ')}</strong>
              <span className="muted">{[t(`state.${own.state}`), own.runs ? t('graph.times', { n: own.runs }) : '', own.runs ? duration(own.ms) : ''].filter(Boolean).join(' · ')}</span>
              <span className="muted">→ {to(node.id)}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

function NodeDetail({ node, facts }: { node: string; facts: Facts | undefined }): ReactElement {
  const s = useExternal(session.session);
  const top = node.split(':')[0] ?? node;
  const states = pathTo(s.tree, s.leaf).filter(({ nodes }) => nodes.includes(top)).toReversed().slice(0, 50);
  return (
    <section className="node-detail" aria-label={nodeName(node)}>
      <header><h3>{node.split(':').map(nodeName).join(' › ')}</h3><IconButton icon="close" label={t('page.close')} onClick={() => app.change({ node: null })} /></header>
      {facts && facts.runs > 0 && <p className="muted">{t('graph.times', { n: facts.runs })} · {duration(facts.ms)}</p>}
      <div className="row">
        <label className="check"><input type="checkbox" checked={s.breakpoints.before.includes(top)} onChange={() => session.toggleBreakpoint('before', top)} />{t('graph.before')}</label>
        <label className="check"><input type="checkbox" checked={s.breakpoints.after.includes(top)} onChange={() => session.toggleBreakpoint('after', top)} />{t('graph.after')}</label>
      </div>
      <h4>{t('graph.states')}</h4>
      {states.length === 0 ? <p className="muted">{t('graph.nostates')}</p> : (
        <ol className="node-states">
          {states.map((one) => <li key={one.checkpoint_id}><button type="button" className="button quiet" onClick={() => openPanel('timeline', one.checkpoint_id)}><Icon name="history" />{t('checkpoints.step', { n: one.step })}<span className="muted">{moment(one.created_at)}</span></button></li>)}
        </ol>
      )}
      {s.breakpoints.before.length + s.breakpoints.after.length > 0 && <p className="muted">{t('graph.brakes', { n: number(s.breakpoints.before.length + s.breakpoints.after.length) })}</p>}
    </section>
  );
}
