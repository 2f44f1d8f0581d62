/** The shapes of the LangGraph Server API, as far as the page reads them. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Dict = Record<string, unknown>;

export interface ToolCall { id: string; name: string; args: unknown }

export interface Usage { input_tokens: number; output_tokens: number; total_tokens: number }

/** A message in a state or a frame. */
export interface RawMessage {
  id?: string | null;
  type?: string;
  role?: string;
  content: unknown;
  name?: string | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string | null;
  artifact?: unknown;
  status?: string;
  usage_metadata?: Usage | null;
  response_metadata?: Dict;
  tool_call_chunks?: { index?: number | null; id?: string | null; name?: string | null; args?: string | null }[];
  additional_kwargs?: Dict;
}

export interface Interrupt { id?: string; interrupt_id?: string; value: unknown }

export interface ThreadTask { id: string; name: string; error: unknown; interrupts: Interrupt[]; checkpoint?: unknown; state?: unknown; result?: unknown }

export interface ThreadState {
  values: Dict | null;
  next: string[];
  tasks: ThreadTask[];
  metadata: Dict | null;
  created_at: string | null;
  checkpoint: { checkpoint_id?: string | null } | null;
  parent_checkpoint: { checkpoint_id?: string | null } | null;
  interrupts?: Interrupt[];
}

export interface Thread {
  thread_id: string;
  status: string;
  created_at: string;
  updated_at: string;
  metadata: Dict | null;
  interrupts?: Record<string, Interrupt[]>;
  values?: Dict | null;
}

export interface Run { run_id: string; thread_id: string; status: string; created_at: string; metadata?: Dict; kwargs?: Dict }

export interface Assistant {
  assistant_id: string;
  graph_id: string;
  name: string;
  description?: string | null;
  config: Dict;
  context?: Dict;
  metadata: Dict | null;
  version: number;
  created_at: string;
  updated_at?: string;
}

export interface GraphNode { id: string; type?: string; data?: unknown; metadata?: Dict }
export interface GraphEdge { source: string; target: string; conditional?: boolean; data?: string | null }
export interface Graph { nodes: GraphNode[]; edges: GraphEdge[] }

export interface Schemas { input_schema: Schema | null; state_schema: Schema | null; config_schema: Schema | null; context_schema: Schema | null }

/** A JSON schema, as far as forms are made from it. */
export interface Schema {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  minimum?: number;
  maximum?: number;
  $ref?: string;
  $defs?: Record<string, Schema>;
}

export interface Info { name?: string; version?: string; threadline_version?: string; langgraph_py_version?: string; flags?: Dict; graphs?: string[]; model?: { provider: string; names: string[] } }

/** A checkpoint without its state. */
export interface Checkpoint {
  checkpoint_id: string;
  parent_id: string | null;
  step: number;
  source: string;
  nodes: string[];
  next: string[];
  created_at: string;
  run_id: string | null;
  pinned?: boolean;
  name?: string | null;
}
