"""congestion"""
